"""How answers are drawn; `test_capture` tests what a teacher is heard to say meanwhile."""

import numpy as np
import pytest
import torch

from limbeck.distill.capture import end_tokens
from limbeck.distill.targets import Ids
from limbeck.distill.write import Sampling, draw_answers, write_answers
from limbeck.model import LocalModel

SAMPLING = Sampling(temperature=0.9, max_new_tokens=12, ends=frozenset({2}))


def _prompts(count: int) -> list[Ids]:
    rng = np.random.default_rng(8)
    return [rng.integers(3, 400, rng.integers(1, 9)).astype(np.int32) for _ in range(count)]


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_token_is_drawn_from_what_the_finished_text_makes_likely(
    tiny_teacher: LocalModel,
) -> None:
    """The logits reported while writing are those of one pass over the finished text."""
    prompts = _prompts(5)
    heard: list[list[torch.Tensor]] = [[] for _ in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    for drawn in draw_answers(tiny_teacher.model, prompts, SAMPLING, _seeded()):
        for row, token, logits_V in zip(
            drawn.row_B.tolist(), drawn.next_B.tolist(), drawn.logits_BV, strict=True
        ):
            heard[row].append(logits_V)
            answers[row].append(token)
    for prompt, answer, logits in zip(prompts, answers, heard, strict=True):
        tokens_BT = torch.tensor([[*prompt.tolist(), *answer]])
        with torch.no_grad():
            logits_TV = tiny_teacher.model(tokens_BT).logits[0]
        torch.testing.assert_close(
            torch.stack(logits), logits_TV[len(prompt) - 1 : -1], rtol=1e-4, atol=1e-4
        )


def test_an_answer_ends_with_the_first_end_token_or_at_its_length(tiny_teacher: LocalModel) -> None:
    ends = frozenset(range(0, 400, 7))
    sampling = Sampling(temperature=1.0, max_new_tokens=12, ends=ends)
    answers = write_answers(tiny_teacher.model, _prompts(40), sampling, _seeded())
    assert {len(a) for a in answers} > {1, 12}
    for answer in answers:
        assert not ends.intersection(answer[:-1])
        assert answer[-1] in ends or len(answer) == 12


def test_the_same_seed_writes_the_same_answers_and_another_one_others(
    tiny_teacher: LocalModel,
) -> None:
    prompts = _prompts(6)
    one, two, other = (
        write_answers(tiny_teacher.model, prompts, SAMPLING, _seeded(s)) for s in (4, 4, 5)
    )
    assert one == two
    assert one != other


@pytest.mark.parametrize("ends", [frozenset[int](), frozenset({2})])
def test_answers_without_an_end_token_go_on_to_their_length(
    tiny_teacher: LocalModel, ends: frozenset[int]
) -> None:
    sampling = Sampling(temperature=1e-4, max_new_tokens=5, ends=ends)
    (answer,) = write_answers(tiny_teacher.model, _prompts(1), sampling, _seeded())
    assert len(answer) == 5


def test_the_end_tokens_of_a_model_are_known(tiny_teacher: LocalModel) -> None:
    assert tiny_teacher.tokenizer.eos_token_id in end_tokens(tiny_teacher)
