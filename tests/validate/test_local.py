"""Batched likelihoods and answers of a tiny model, against the same one item at a time."""

import dataclasses

import pytest
import torch

from limbeck.errors import ScoringError
from limbeck.model import LocalModel
from limbeck.validate.local import LocalRespondent
from limbeck.validate.respond import Asked, ServedRespondent

PROMPTS = [
    "The river",
    "Copper kettles shine on the",
    "Dear Anna, thank you for the letter. Could",
    "A",
]
CHOICES = [
    (" runs", " stops at the mill"),
    (" shelf", " old stone bridge", " shel"),
    (" we meet", " we"),
    (" baker weighs flour", " kettle"),
]


def asked(prompts: list[str], ask: str = "text") -> list[Asked]:
    return [Asked(str(i), p, "chat" if ask == "chat" else "text") for i, p in enumerate(prompts)]


def by_hand(local: LocalModel, text: str, choice: str) -> float:
    """Sum the log-probabilities of what a choice adds, in one forward of its own."""
    before, whole = (local.tokenizer(t)["input_ids"] for t in (text, text + choice))
    with torch.inference_mode():
        log_TV = local.model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    shared = next(
        (i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before)
    )
    return sum(float(log_TV[t - 1, whole[t]]) for t in range(shared, len(whole)))


@pytest.mark.parametrize("batch_tokens", [8, 4096])
def test_batched_likelihoods_are_those_of_one_forward_each(
    tiny_local: LocalModel, batch_tokens: int
) -> None:
    respondent = LocalRespondent(tiny_local, batch_tokens=batch_tokens)
    heard: list[int] = []
    said = respondent.weigh(asked(PROMPTS), CHOICES, heard=heard.append)
    assert sum(heard) == len(PROMPTS)
    for prompt, choices, found in zip(PROMPTS, CHOICES, said, strict=True):
        # All choices of an item go on from what they share, so differences are what counts.
        known = [by_hand(tiny_local, prompt, c) for c in choices]
        for log, right in zip(found.log_C, known, strict=True):
            assert log - found.log_C[0] == pytest.approx(right - known[0], abs=1e-3)


def test_a_model_is_asked_without_being_changed(tiny_local: LocalModel) -> None:
    before = {k: v.clone() for k, v in tiny_local.model.state_dict().items()}
    LocalRespondent(tiny_local).write(asked(PROMPTS), max_new_tokens=4, heard=lambda _: None)
    assert all(torch.equal(v, before[k]) for k, v in tiny_local.model.state_dict().items())


def test_answers_in_a_batch_are_those_of_one_at_a_time(tiny_local: LocalModel) -> None:
    respondent = LocalRespondent(tiny_local)
    together = respondent.write(asked(PROMPTS, "chat"), max_new_tokens=6, heard=lambda _: None)
    alone = [
        respondent.write([a], max_new_tokens=6, heard=lambda _: None)[0]
        for a in asked(PROMPTS, "chat")
    ]
    assert together == alone


def test_what_does_not_fit_the_context_is_refused_by_name(tiny_local: LocalModel) -> None:
    long = asked(["word " * 600])
    with pytest.raises(ScoringError, match=r"0 has .* tokens with its longest choice.* reads 512"):
        LocalRespondent(tiny_local).weigh(long, [(" a", " b")], heard=lambda _: None)
    with pytest.raises(ScoringError, match="reads 512 at the most"):
        LocalRespondent(tiny_local).write(long, max_new_tokens=4, heard=lambda _: None)


def test_the_system_message_is_part_of_what_is_asked(tiny_local: LocalModel) -> None:
    plain = Asked("1", "Hello", "chat")
    with_system = dataclasses.replace(plain, system="Be brief.")
    assert [m.role for m in with_system.messages()] == ["system", "user"]
    choices = [(" yes", " no")]
    one, two = (
        LocalRespondent(tiny_local).weigh([a], choices, heard=lambda _: None)[0].log_C
        for a in (plain, with_system)
    )
    assert one != two


def test_a_served_model_writes_and_refuses_to_weigh() -> None:
    served = ServedRespondent(
        "far", "far away", lambda turns, _: [t[-1].content.upper() for t in turns]
    )
    assert served.write(asked(["hello"]), max_new_tokens=4, heard=lambda _: None) == ["HELLO"]
    with pytest.raises(ScoringError, match="far gives no log-probabilities, which 0 needs"):
        served.weigh(asked(["hello"]), [(" a", " b")], heard=lambda _: None)
