"""Log-probabilities leave only where their tokens spell the text that leaves."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.seal.spelling import Spelling
from limbeck.guard.seal.tags import Tags

TAGS = Tags()
patient = settings(deadline=None)


def said(*tokens: str) -> dict[str, Any]:
    return {
        "content": [
            {"token": t, "logprob": -0.5, "bytes": list(t.encode()), "top_logprobs": []}
            for t in tokens
        ]
    }


def by_byte(text: str) -> dict[str, Any]:
    return {
        "content": [
            {"token": bytes([b]).decode("utf-8", "replace"), "logprob": 0, "bytes": [b]}
            for b in text.encode()
        ]
    }


@patient
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=6))
def test_tokens_that_spell_the_text_hold_in_all_forms(tokens: list[str]) -> None:
    text = "".join(tokens)
    assert Spelling(TAGS).holds(said(*tokens), text, ends=True)
    assert Spelling(TAGS).holds(said(*tokens)["content"], text, ends=True)
    assert Spelling(TAGS).holds(
        {"tokens": tokens, "token_logprobs": [0.0] * len(tokens)}, text, ends=True
    )
    assert Spelling(TAGS).holds(by_byte(text), text, ends=True)


@patient
@given(st.text(max_size=8), st.text("QZXJ ", min_size=1), st.booleans())
def test_any_further_token_does_not(text: str, hidden: str, before: bool) -> None:
    tokens = [hidden, text] if before else [text, hidden]
    if "".join(tokens) != text:
        assert not Spelling(TAGS).holds(said(*tokens), text, ends=True)


def test_a_mark_of_the_end_may_follow_at_the_end_only() -> None:
    assert Spelling(TAGS).holds(said("Yes", "<|im_end|>"), "Yes", ends=True)
    assert Spelling(TAGS).holds(said("Yes", "</s>"), "Yes", ends=True)
    assert not Spelling(TAGS).holds(said("Yes", "<|im_end|>"), "Yes", ends=False)
    assert not Spelling(TAGS).holds(said("Yes", "</think>"), "Yes", ends=True)


def test_a_character_may_take_several_pieces() -> None:
    spelling = Spelling(TAGS)
    first, second = by_byte("é")["content"]
    assert spelling.holds({"content": [first]}, "", ends=False)
    assert spelling.holds({"content": [second]}, "é", ends=False)
    assert spelling.holds(said("a"), "a", ends=False)


@pytest.mark.parametrize(
    "form",
    [None, 1, "Yes", {"content": "Yes"}, {"tokens": [1]}, {"content": [{"token": 1}]}, {"other": []},
     {"content": [{"token": "Yes", "hidden": "Q"}]}, {"content": [{"token": "Q", "bytes": [89, 101, 115]}]},
     {"content": [{"token": "Yes", "bytes": ["Q"]}]}],
)  # fmt: skip
def test_forms_that_nobody_knows_do_not_hold(form: Any) -> None:
    assert not Spelling(TAGS).holds(form, "Yes", ends=True)
