"""Verdicts say no more than the evidence."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.trace.verdict import NOT_SHOWN, decide, decide_by_p, strength


@given(st.floats(-20, 40), st.integers(0, 3000), st.booleans(), st.sampled_from([0.05, 1e-3]))
def test_distilled_is_said_exactly_at_the_level_that_was_fixed(
    log_e: float, coins: int, all_used: bool, alpha: float
):
    verdict = decide(log_e, alpha=alpha, coins=coins, all_used=all_used, more_coins=None)
    assert (verdict.finding == "distilled") == (log_e >= -math.log(alpha))


@given(st.floats(-20, 5), st.integers(10, 3000), st.integers(1, 20_000))
def test_growing_evidence_leaves_the_question_open(log_e: float, coins: int, more: int):
    verdict = decide(log_e, alpha=1e-3, coins=coins, all_used=True, more_coins=more)
    assert verdict.finding == ("undecided" if more <= 4 * coins else "not shown")
    assert str(more) in verdict.because


def test_an_audit_that_was_stopped_early_shows_nothing_either_way():
    assert decide(0.0, alpha=0.01, coins=99, all_used=False, more_coins=None).finding == "undecided"


def test_not_shown_is_never_put_as_innocence():
    text = decide(-3.0, alpha=0.01, coins=99, all_used=True, more_coins=None).because + NOT_SHOWN
    assert "not innocence" in text
    assert "was not trained" not in text


@given(st.floats(0.001, 1), st.sampled_from([0.05, 0.01]))
def test_a_p_value_decides_at_alpha_and_is_worth_less_than_its_inverse(p: float, alpha: float):
    verdict = decide_by_p(p, alpha=alpha, coins=100)
    assert (verdict.finding == "distilled") == (p <= alpha)
    assert verdict.log_e < -math.log(p) + 1e-12


def test_the_calibrator_of_p_values_has_mean_one_under_a_uniform_p():
    grid = [(i + 0.5) / 20_000 for i in range(20_000)]
    mean = sum(math.exp(decide_by_p(p, alpha=0.01, coins=1).log_e) for p in grid) / len(grid)
    assert mean == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("p", [0.0, -1.0, 1.5])
def test_a_p_value_of_zero_cannot_be(p: float):
    with pytest.raises(ValueError, match="p-value"):
        decide_by_p(p, alpha=0.01, coins=5)


def test_words_grow_with_the_evidence():
    said = [strength(math.log(x)) for x in (1, 3, 30, 300, 3e3, 3e5, 3e7)]
    assert len(set(said)) == 7
    assert said[0].startswith("no support")
