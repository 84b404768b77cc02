from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
import torch

from limbeck.distill.capture import answer_prompts, capture_documents, capture_order, end_tokens
from limbeck.distill.corpus import Prompt
from limbeck.distill.recipe import GenerateRecipe
from limbeck.distill.store import StoreSpec
from limbeck.distill.targets import Document, Taught
from limbeck.model import LocalModel

SPEC = StoreSpec()
GENERATE = GenerateRecipe(temperature=0.8, max_new_tokens=12, batch=4)


def _prompts(count: int) -> list[Prompt]:
    rng = np.random.default_rng(2)
    return [
        Prompt(rng.integers(3, 400, rng.integers(3, 9)).astype(np.int32), False, f"{n:064x}")
        for n in range(count)
    ]


def _log_probs(teacher: LocalModel, document: Document) -> torch.Tensor:
    """What the teacher says about a document that it reads alone."""
    with torch.no_grad():
        logits_TV = teacher.model(torch.from_numpy(document.tokens_T).long()[None]).logits[0]
    return logits_TV[torch.from_numpy(document.loss_T)].log_softmax(-1)


def _assert_said(teacher: LocalModel, taught: Taught) -> None:
    """Entropy and head masses are the teacher's, each within its step in the store."""
    log_NV = _log_probs(teacher, taught.document)
    said = taught.targets
    assert len(said) == taught.document.positions
    entropy_N = -(log_NV.exp() * log_NV).sum(-1).numpy()
    np.testing.assert_allclose(said.entropy_N, entropy_N, atol=1 / 32 + 1e-3)
    row_E = np.repeat(np.arange(len(said)), np.diff(said.offsets_N1))
    head = said.is_head_E
    exact_E = log_NV.exp().numpy()[row_E[head], said.ids_E[head]]
    assert np.abs(said.weights_E[head] - exact_E).max(initial=0) <= 1 / SPEC.levels + 1e-5


def test_a_batch_says_what_each_document_alone_would_hear(
    tiny_teacher: LocalModel, tiny_documents: list[Document]
) -> None:
    ordered = capture_order(tiny_documents)
    heard = list(capture_documents(tiny_teacher, ordered, SPEC, batch_tokens=100, seed=0))
    assert [t.document.key for t in heard] == [d.key for d in ordered]
    for taught in heard:
        _assert_said(tiny_teacher, taught)


def test_capture_goes_on_as_if_it_had_not_stopped(
    tiny_teacher: LocalModel, tiny_documents: list[Document]
) -> None:
    ordered = capture_order(tiny_documents)
    for tokens in (1, 90):
        whole = list(capture_documents(tiny_teacher, ordered, SPEC, batch_tokens=tokens, seed=4))
        for skip in (0, 7, len(ordered)):
            rest = capture_documents(
                tiny_teacher, ordered, SPEC, batch_tokens=tokens, seed=4, skip=skip
            )
            _assert_same(whole[skip:], list(rest))


def test_targets_heard_while_writing_are_those_of_the_finished_text(
    tiny_teacher: LocalModel,
) -> None:
    for taught in answer_prompts(tiny_teacher, _prompts(6), GENERATE, SPEC, seed=1):
        _assert_said(tiny_teacher, taught)


def test_an_answer_starts_after_its_prompt_and_ends_with_its_turn(tiny_teacher: LocalModel) -> None:
    ends = end_tokens(tiny_teacher)
    prompts = _prompts(6)
    for prompt, taught in zip(
        prompts, answer_prompts(tiny_teacher, prompts, GENERATE, SPEC, seed=1), strict=True
    ):
        document, start = taught.document, len(prompt.tokens_T)
        assert document.tokens_T[:start].tolist() == prompt.tokens_T.tolist()
        answer = document.tokens_T[start:].tolist()
        assert 0 < len(answer) <= GENERATE.max_new_tokens
        assert not ends.intersection(answer[:-1])
        assert answer[-1] in ends or len(answer) == GENERATE.max_new_tokens
        assert np.flatnonzero(document.loss_T).tolist() == list(
            range(start - 1, start - 1 + len(answer))
        )


@pytest.mark.parametrize("skip", [0, 3, 4, 6])
def test_answers_after_an_interruption_are_the_same(tiny_teacher: LocalModel, skip: int) -> None:
    prompts = _prompts(7)
    whole = list(answer_prompts(tiny_teacher, prompts, GENERATE, SPEC, seed=9))
    rest = list(answer_prompts(tiny_teacher, prompts, GENERATE, SPEC, seed=9, skip=skip))
    _assert_same(whole[skip:], rest)


def test_a_cold_teacher_writes_its_likeliest_tokens(tiny_teacher: LocalModel) -> None:
    cold = GENERATE.model_copy(update={"temperature": 1e-4})
    (taught,) = islice(answer_prompts(tiny_teacher, _prompts(1), cold, SPEC, seed=0), 1)
    likeliest = _log_probs(tiny_teacher, taught.document).argmax(-1).tolist()
    next_tokens = taught.document.tokens_T[np.flatnonzero(taught.document.loss_T) + 1].tolist()
    assert next_tokens == likeliest


def test_realised_tokens_follow_the_sampling_temperature(tiny_teacher: LocalModel) -> None:
    """At the first answer token: frequencies over many draws against the softened softmax."""
    prompt = _prompts(1)[0]
    draws = 4000
    recipe = GenerateRecipe(temperature=0.7, max_new_tokens=1, batch=1000)
    answers = answer_prompts(tiny_teacher, [prompt] * draws, recipe, SPEC, seed=5)
    counts_V = np.bincount([int(t.document.tokens_T[-1]) for t in answers], minlength=400)
    with torch.no_grad():
        logits_V = tiny_teacher.model(torch.from_numpy(prompt.tokens_T).long()[None]).logits[0, -1]
    p_V = (logits_V / 0.7).softmax(-1).double().numpy()
    expected_V = draws * p_V
    common = expected_V > 20
    z_V = (counts_V[common] - expected_V[common]) / np.sqrt(expected_V[common] * (1 - p_V[common]))
    assert common.sum() >= 5
    assert np.abs(z_V).max() < 4.5


def _assert_same(one: Sequence[Taught], two: Sequence[Taught]) -> None:
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.document.tokens_T, b.document.tokens_T)
        np.testing.assert_array_equal(a.targets.ids_E, b.targets.ids_E)
        np.testing.assert_array_equal(a.targets.weights_E, b.targets.weights_E)
