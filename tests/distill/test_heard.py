"""What an API says, against the very distributions that it came from."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from fakeapi import Json, TinyChat
from limbeck.backends.ask import chat_ask, score_ask
from limbeck.backends.reply import Answered, Reply, read_reply
from limbeck.chat import Choice, Completion, Message
from limbeck.distill.corpus import Prompt
from limbeck.distill.heard import (
    Hearing,
    end_of_turn,
    hear_choices,
    hear_scores,
    hear_text,
    known_spec,
)
from limbeck.distill.spelling import spelling_of
from limbeck.distill.targets import Document, SparseTargets
from limbeck.errors import TeacherError, TokenizerMismatchError
from limbeck.model import LocalModel

TURNS = (Message("user", "Say hello to Anna."),)
LEVELS = 4096


@pytest.fixture(scope="module")
def prompt(tiny_tokenizer: Any) -> Prompt:
    text = tiny_tokenizer.apply_chat_template(
        [t.as_dict() for t in TURNS], tokenize=False, add_generation_prompt=True
    )
    ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    return Prompt(np.asarray(ids, np.int32), False, "ab" * 32, TURNS)


def hearing(tokenizer: Any, entries: int | None = None, max_length: int = 96) -> Hearing:
    return Hearing(
        tokenizer=tokenizer,
        spec=known_spec(entries, shard_documents=4),
        end=end_of_turn(tokenizer),
        max_length=max_length,
        seed=0,
        spelling=None
        if entries is None
        else spelling_of(tokenizer, len(tokenizer), name="student"),
    )


def said(text: str, finish: str = "stop", choices: Any = None) -> Completion:
    return Completion(text, finish, "m", 1, 1, choices)


def received(value: Json, ask: Any) -> Completion:
    import json

    reply = Reply(200, {}, json.dumps(value).encode())
    from datetime import UTC, datetime

    outcome = read_reply(ask, reply, where="x", served_as=None, now=datetime.now(UTC))
    assert isinstance(outcome, Answered)
    return outcome.completion


def dense(targets: SparseTargets, position: int) -> dict[int, float]:
    where = slice(*targets.offsets_N1[position : position + 2])
    return dict(zip(targets.ids_E[where].tolist(), targets.weights_E[where].tolist(), strict=True))


def test_a_template_says_how_a_turn_ends(tiny_tokenizer: Any) -> None:
    assert end_of_turn(tiny_tokenizer) == tiny_tokenizer.eos_token_id


def test_text_alone_becomes_realised_tokens_and_the_end_of_the_turn(
    tiny_tokenizer: Any, prompt: Prompt
) -> None:
    ears = hearing(tiny_tokenizer)
    taught = hear_text(prompt, said("Hello, Anna."), ears)
    document, targets = taught.document, taught.targets
    start = len(prompt.tokens_T)
    assert tiny_tokenizer.decode(document.tokens_T[start:-1]) == "Hello, Anna."
    assert document.tokens_T[-1] == tiny_tokenizer.eos_token_id
    assert document.positions == len(document.tokens_T) - start == len(targets)
    assert not targets.is_head_E.any()
    assert (targets.tail_N == 1).all()
    np.testing.assert_array_equal(targets.ids_E, document.tokens_T[start:])
    assert ears.counts.as_dict() == {"cut_answers": 0, "unknown_ends": 0, "foreign_tokens": 0}


def test_forward_kl_with_realised_tokens_is_cross_entropy(
    tiny_tokenizer: Any, prompt: Prompt
) -> None:
    from limbeck.distill.objective import LossSpec
    from limbeck.distill.sparse_loss import sparse_loss
    from limbeck.distill.torch_targets import TorchTargets

    taught = hear_text(prompt, said("Hello, Anna."), hearing(tiny_tokenizer))
    targets = TorchTargets.from_numpy(taught.targets)
    log_q_NV = torch.randn(len(targets), 400).log_softmax(-1)
    log_q_E = log_q_NV[targets.row_E, targets.ids_E]
    loss_N = sparse_loss(LossSpec(), targets, log_q_E, torch.zeros(len(targets)))
    torch.testing.assert_close(loss_N, -log_q_E)


def test_a_cut_answer_does_not_end_and_is_counted(tiny_tokenizer: Any, prompt: Prompt) -> None:
    ears = hearing(tiny_tokenizer)
    taught = hear_text(prompt, said("Hello, Ann\ufffd", "length"), ears)
    answer = taught.document.tokens_T[len(prompt.tokens_T) :]
    assert tiny_tokenizer.decode(answer) == "Hello, Ann"
    assert ears.counts.cut_answers == 1


def test_an_answer_beyond_the_length_is_cut_and_counted(
    tiny_tokenizer: Any, prompt: Prompt
) -> None:
    ears = hearing(tiny_tokenizer, max_length=len(prompt.tokens_T) + 3)
    taught = hear_text(prompt, said("Hello, Anna, how are you?"), ears)
    assert len(taught.document.tokens_T) == len(prompt.tokens_T) + 3
    assert taught.document.positions == 3 == len(taught.targets)
    assert ears.counts.cut_answers == 1


@pytest.mark.parametrize("states_end", [True, False])
def test_likely_tokens_are_those_of_the_model_and_the_rest_is_tail(
    tiny_teacher: LocalModel, prompt: Prompt, states_end: bool
) -> None:
    tokenizer, entries = tiny_teacher.tokenizer, 5
    chat = TinyChat(tiny_teacher, states_end=states_end)
    ears = hearing(tokenizer, entries)
    ended = 0
    for seed in range(40):
        ask = chat_ask("m", TURNS, max_tokens=12, temperature=1.6, seed=seed, top_logprobs=entries)
        value = chat(dict(ask.body), 0)
        assert isinstance(value, dict)
        completion = received(value, ask)
        if not completion.text:
            continue
        taught = hear_choices(prompt, completion, ears)
        document = taught.document
        with torch.inference_mode():
            tokens_BT = torch.from_numpy(document.tokens_T).long()[None]
            probs_TV = tiny_teacher.model(tokens_BT).logits[0].float().softmax(-1)
        places = np.flatnonzero(document.loss_T)
        ended += completion.finish == "stop"
        for position, place in enumerate(places):
            realised = int(document.tokens_T[place + 1])
            found = dense(taught.targets, position)
            if realised == tokenizer.eos_token_id and not states_end:
                assert found == {realised: 1.0}
                continue
            best = set(probs_TV[place].topk(entries).indices.tolist())
            assert set(found) == best | {realised}
            for token, mass in found.items():
                assert abs(mass - float(probs_TV[place, token])) < 1.5 / LEVELS
            tail = 1 - float(probs_TV[place, list(found)].sum())
            assert abs(float(taught.targets.tail_N[position]) - tail) < 1.5 / LEVELS
    assert ended
    assert ears.counts.unknown_ends == (0 if states_end else ended)


def choice(token: bytes, logprob: float | None = -1.0, **top: float) -> Choice:
    return Choice(token, logprob, tuple((t.encode(), p) for t, p in top.items()))


def test_a_token_that_the_student_lacks_is_an_error_that_names_it(
    tiny_tokenizer: Any, prompt: Prompt
) -> None:
    completion = said("zebra crossing", choices=(choice(b"zebra crossing"),))
    with pytest.raises(TokenizerMismatchError, match="'zebra crossing', which the student's"):
        hear_choices(prompt, completion, hearing(tiny_tokenizer, 2))


def test_tokens_that_do_not_spell_the_text_are_an_error(
    tiny_tokenizer: Any, prompt: Prompt
) -> None:
    completion = said("ab", choices=(choice(b"a"), choice(b"c"), choice(b"d")))
    with pytest.raises(TokenizerMismatchError, match="do not spell its text: 'acd' against 'ab'"):
        hear_choices(prompt, completion, hearing(tiny_tokenizer, 2))


def test_a_likely_token_that_the_student_lacks_stays_in_the_tail_and_is_counted(
    tiny_tokenizer: Any, prompt: Prompt
) -> None:
    ears = hearing(tiny_tokenizer, 2)
    half, third = math.log(0.5), math.log(0.25)
    completion = said("a", "length", (choice(b"a", half, a=half, zebra=third),))
    taught = hear_choices(prompt, completion, ears)
    assert taught.targets.tail_N.tolist() == [0.5]
    assert ears.counts.foreign_tokens == 1


def test_what_sums_above_one_is_no_probability(tiny_tokenizer: Any, prompt: Prompt) -> None:
    completion = said("a", "length", (choice(b"a", -0.1, a=-0.1, b=-0.2),))
    with pytest.raises(TeacherError, match=r"sum to 1\.7\d\d at one place"):
        hear_choices(prompt, completion, hearing(tiny_tokenizer, 2))


def test_a_realised_token_of_unknown_probability_is_no_part_of_the_head(
    tiny_tokenizer: Any, prompt: Prompt
) -> None:
    completion = said("a", "length", (choice(b"a", None, b=math.log(0.5)),))
    taught = hear_choices(prompt, completion, hearing(tiny_tokenizer, 2))
    b = tiny_tokenizer("b", add_special_tokens=False)["input_ids"]
    assert taught.targets.ids_E.tolist() == b


def scored(teacher: LocalModel) -> tuple[Document, Completion]:
    ids = teacher.tokenizer("The river runs past the mill.", add_special_tokens=False)["input_ids"]
    loss_T = np.ones(len(ids), np.bool_)
    loss_T[[0, -1]] = False
    document = Document(np.asarray(ids, np.int32), loss_T, False, "cd" * 32)
    ask = score_ask("m", ids, prompt_logprobs=4)
    value = TinyChat(teacher)(dict(ask.body), 0)
    assert isinstance(value, dict)
    return document, received(value, ask)


def test_scores_of_given_text_are_those_of_the_model(tiny_teacher: LocalModel) -> None:
    document, completion = scored(tiny_teacher)
    taught = hear_scores(document, completion, hearing(tiny_teacher.tokenizer, 4))
    with torch.inference_mode():
        tokens_BT = torch.from_numpy(document.tokens_T).long()[None]
        probs_TV = tiny_teacher.model(tokens_BT).logits[0].float().softmax(-1)
    for position, place in enumerate(np.flatnonzero(document.loss_T)):
        found = dense(taught.targets, position)
        assert int(document.tokens_T[place + 1]) in found
        for token, mass in found.items():
            assert abs(mass - float(probs_TV[place, token])) < 1.5 / LEVELS


def test_scores_by_other_ids_are_an_error(tiny_teacher: LocalModel) -> None:
    document, completion = scored(tiny_teacher)
    assert completion.prompt is not None
    ears = hearing(tiny_teacher.tokenizer, 4)
    renamed = tuple(tuple((i, p, "zebra") for i, p, _ in place) for place in completion.prompt)
    with pytest.raises(TokenizerMismatchError, match="'zebra' at the server"):
        hear_scores(document, dataclasses.replace(completion, prompt=renamed), ears)
    shifted = tuple(tuple((i + 1, p, "") for i, p, _ in place) for place in completion.prompt)
    with pytest.raises(TeacherError, match="lack token"):
        hear_scores(document, dataclasses.replace(completion, prompt=shifted), ears)
