from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.validate.judge.ballot import Verdict
from limbeck.validate.judge.duel import Duel, Outcome

HEARD = st.sampled_from(get_args(Verdict))
TURNED: dict[Verdict, Verdict] = {"A": "B", "B": "A", "tie": "tie"}


def test_both_answers_stand_first_once() -> None:
    straight, swapped = Duel("Why?", "left", "right").ballots()
    assert (straight.answer_a, straight.answer_b) == ("left", "right")
    assert (swapped.answer_a, swapped.answer_b) == ("right", "left")


@pytest.mark.parametrize("always", ["A", "B"])
def test_a_judge_that_looks_at_the_place_alone_is_inconsistent_and_elects_nobody(
    always: Verdict,
) -> None:
    outcome = Outcome(always, always)
    assert not outcome.consistent
    assert outcome.winner is None
    assert outcome.share == 0.5


@settings(deadline=None)  # the machine may be busy
@given(straight=HEARD, swapped=HEARD)
def test_turning_a_duel_around_turns_its_result_around(straight: Verdict, swapped: Verdict) -> None:
    outcome, turned = Outcome(straight, swapped), Outcome(swapped, straight)
    assert outcome.share is not None
    assert turned.share == 1 - outcome.share
    assert turned.consistent == outcome.consistent
    assert {outcome.winner, turned.winner} in ({None}, {"left", "right"})


@settings(deadline=None)  # the machine may be busy
@given(verdict=HEARD)
def test_a_verdict_that_is_missing_makes_no_share_and_no_consistency(verdict: Verdict) -> None:
    for outcome in (Outcome(verdict, None), Outcome(None, verdict), Outcome(None, None)):
        assert outcome.share is None
        assert outcome.winner is None
        assert not outcome.consistent


@settings(deadline=None)  # the machine may be busy
@given(verdict=HEARD)
def test_a_consistent_judge_is_found_so(verdict: Verdict) -> None:
    assert Outcome(verdict, TURNED[verdict]).consistent
