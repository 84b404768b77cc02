from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.chat import Message
from limbeck.distill.filter import (
    REASONS,
    Candidate,
    Decision,
    Reason,
    checks_of,
    choose,
    decide,
    repetition,
    score_decision,
    tally,
)
from limbeck.distill.recipe import FilterRecipe
from limbeck.errors import FilterError

SCHEMA = {
    "type": "object",
    "properties": {"intent": {"enum": ["play", "stop"]}},
    "required": ["intent"],
    "additionalProperties": False,
}


def candidate(answer: str = "Yes.", **changes: Any) -> Candidate:
    fields: dict[str, Any] = {
        "turns": (Message("user", "Is it?"),),
        "answer": answer,
        "reference": None,
        "finished": True,
        "tokens_T": np.frombuffer(answer.encode(), np.uint8).astype(np.int32),
        "heldout": False,
        "prompt": 0,
    }
    return Candidate(**(fields | changes))


def reason(one: Candidate, schema: Any = None, verify: Any = None, **recipe: Any) -> Reason | None:
    return decide(one, checks_of(FilterRecipe(**recipe), schema, verify)).because


@pytest.mark.parametrize(
    ("recipe", "good", "bad", "because"),
    [
        ({"finished": True}, {}, {"finished": False}, "unfinished"),
        ({"min_tokens": 4}, {}, {"answer": "No."}, "too_short"),
        ({"max_tokens": 4}, {}, {"answer": "Maybe."}, "too_long"),
        (
            {"max_repetition": 0.2},
            {"answer": "the river runs"},
            {"answer": "ab" * 20},
            "repetitive",
        ),
        ({"pattern": r"^Yes"}, {}, {"answer": "Oh Yes"}, "pattern"),
        ({"forbidden": r"(?i)as an ai"}, {}, {"answer": "As an AI, no"}, "forbidden"),
        (
            {"matches_reference": True},
            {"reference": " Yes.\n"},
            {"reference": "yes."},
            "reference",
        ),
        (
            {"matches_reference": True, "answer_pattern": r"= (\d+)"},
            {"answer": "so 6 x 7 = 42.", "reference": "6 x 7 = 42"},
            {"answer": "so 6 x 7 = 41.", "reference": "42"},
            "reference",
        ),
    ],
)
def test_each_check_rejects_what_it_is_for_and_nothing_else(
    recipe: dict[str, Any], good: dict[str, Any], bad: dict[str, Any], because: Reason
) -> None:
    assert reason(candidate(**good), **recipe) is None
    assert reason(candidate(**bad), **recipe) == because


def test_a_bare_reference_is_compared_whole() -> None:
    recipe: dict[str, Any] = {"matches_reference": True, "answer_pattern": r"= (\d+)"}
    assert reason(candidate("6 x 7 = 42", reference=" 42 "), **recipe) is None
    assert reason(candidate("forty-two", reference="42"), **recipe) == "reference"


@pytest.mark.parametrize(
    ("answer", "because"),
    [
        ('{"intent": "play"}', None),
        (' {"intent": "stop"}\n', None),
        ('{"intent": "sing"}', "json_schema"),
        ('{"intent": "play", "more": 1}', "json_schema"),
        ("[]", "json_schema"),
        ("play", "not_json"),
        ('```json\n{"intent": "play"}\n```', "not_json"),
        ('{"intent": "play"', "not_json"),
        ("NaN", "not_json"),
        ("[" * 100_000, "not_json"),
    ],
)
def test_a_schema_takes_json_that_it_allows_and_nothing_around_it(
    answer: str, because: Reason | None
) -> None:
    assert reason(candidate(answer), schema=SCHEMA) == because


def test_what_is_no_schema_is_refused() -> None:
    with pytest.raises(FilterError, match="no JSON Schema"):
        checks_of(FilterRecipe(), {"type": "objekt"})


def test_a_schema_that_points_elsewhere_fetches_nothing() -> None:
    checks = checks_of(FilterRecipe(), {"$ref": "https://example.com/schema.json"})
    with pytest.raises(FilterError, match="must stand alone"):
        decide(candidate("{}"), checks)


def test_a_verifier_decides() -> None:
    def short(one: Candidate) -> bool:
        return len(one.answer) < 5

    assert reason(candidate("Yes."), verify=short) is None
    assert reason(candidate("Certainly."), verify=short) == "verifier"


def test_a_verifier_that_fails_or_says_neither_yes_nor_no_stops() -> None:
    def broken(one: Candidate) -> bool:
        raise KeyError("answer")

    with pytest.raises(FilterError, match=r"failed on an answer to 'Is it\?': KeyError"):
        reason(candidate(), verify=broken)

    def wordy(one: Candidate) -> str:
        return "False"

    with pytest.raises(FilterError, match="must return True or False, got 'False'"):
        reason(candidate(), verify=wordy)


def test_matching_needs_references() -> None:
    with pytest.raises(FilterError, match="needs responses in the corpus"):
        reason(candidate(), matches_reference=True)


@given(tokens=st.lists(st.integers(0, 5), max_size=40), n=st.integers(1, 6))
def test_repetition_is_the_share_of_grams_seen_before(tokens: list[int], n: int) -> None:
    value = repetition(tokens, n)
    seen: set[tuple[int, ...]] = set()
    repeats = total = 0
    for i in range(len(tokens) - n + 1):
        gram = tuple(tokens[i : i + n])
        repeats, total = repeats + (gram in seen), total + 1
        seen.add(gram)
    assert value == pytest.approx(repeats / total if total else 0)
    assert 0 <= value < 1


def test_a_reply_that_is_no_score_is_told_apart_from_a_low_one() -> None:
    assert score_decision(None, 5) == Decision(False, "judge_unparsed")
    assert score_decision(4.9, 5) == Decision(False, "judge_score")
    assert score_decision(5, 5) == Decision(True)


CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.text("ab. ", min_size=1, max_size=6),
        prompt=st.integers(0, 3),
        finished=st.booleans(),
        heldout=st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@given(
    found=CANDIDATES,
    keep=st.sampled_from(["all", "first"]),
    distinct=st.booleans(),
    shortest=st.integers(1, 4),
)
def test_kept_and_rejected_add_up_and_each_answer_is_counted_once(
    found: list[Candidate], keep: Any, distinct: bool, shortest: int
) -> None:
    recipe = FilterRecipe(finished=True, min_tokens=shortest, keep=keep, distinct=distinct)
    decisions = choose(found, [decide(c, checks_of(recipe)) for c in found], {}, recipe)
    assert all((d.because is None) == d.kept for d in decisions)
    kept = [c for c, d in zip(found, decisions, strict=True) if d.kept]
    if distinct:
        marks = [(c.prompt, c.answer.strip()) for c in kept]
        assert len(set(marks)) == len(marks)
    if keep == "first":
        assert len({c.prompt for c in kept}) == len(kept)
        accepted = {c.prompt for c in found if c.finished and len(c.tokens_T) >= shortest}
        assert {c.prompt for c in kept} == accepted
    try:
        sifted = tally(found, decisions)
    except FilterError:
        assert len({c.heldout for c in kept}) < 2
        return
    assert sum(sifted.rejected.values()) + len(sifted.kept) == len(found)
    assert sum(sifted.answers.values()) == len(found)
    assert sifted.kept_by_side["heldout"] == sum(c.heldout for c in kept)


def test_the_best_answer_of_a_prompt_is_that_of_the_highest_score() -> None:
    found = [candidate(a, prompt=p) for a, p in (("a", 0), ("b", 0), ("c", 0), ("d", 1), ("e", 1))]
    decisions = [Decision(True)] * 4 + [Decision(False, "judge_score")]
    judge = {"model": "openai:j", "api": {"base_url": "http://x/v1"}, "min_score": 2.0}
    recipe = FilterRecipe.model_validate({"keep": "best", "judge": judge})
    decided = choose(found, decisions, {0: 3, 1: 5, 2: 5, 3: 2, 4: 1}, recipe)
    assert [d.kept for d in decided] == [False, True, False, True, False]
    assert [d.because for d in decided] == ["not_chosen", None, "not_chosen", None, "judge_score"]


def test_a_filter_that_rejects_everything_shows_the_counts() -> None:
    found = [candidate(heldout=True), *[candidate("no", heldout=False)] * 3]
    decisions = [Decision(True), *[Decision(False, "not_json")] * 2, Decision(False, "pattern")]
    with pytest.raises(
        FilterError,
        match=r"no answer to train on, of 3; .*1 without what filter.pattern wants, 2 not JSON",
    ):
        tally(found, decisions)


def test_every_reason_has_words() -> None:
    from typing import get_args

    assert set(REASONS) == set(get_args(Reason))
