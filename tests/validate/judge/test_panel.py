import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.validate.judge.panel import effective_votes, mean_votes, vote_matrix

NAN = float("nan")


def _errors(judges: int, share: float, items: int = 20_000, seed: int = 0) -> np.ndarray:
    """Return errors of unit variance whose every two judges have the same correlation."""
    rng = np.random.default_rng(seed)
    common_I = rng.normal(size=items)
    own_JI = rng.normal(size=(judges, items))
    return np.sqrt(share) * common_I + np.sqrt(1 - share) * own_JI


@pytest.mark.parametrize(("judges", "share"), [(2, 0.0), (3, 0.5), (9, 0.4), (9, 1.0)])
def test_the_panel_is_worth_as_many_votes_as_its_mean_varies_less(
    judges: int, share: float
) -> None:
    error_JI = _errors(judges, share)
    expected = judges / (1 + (judges - 1) * share)  # Kish's design effect
    assert effective_votes(error_JI) == pytest.approx(expected, rel=0.05)
    assert error_JI.var() / error_JI.mean(0).var() == pytest.approx(expected, rel=0.05)


def test_nine_judges_that_err_together_are_worth_two() -> None:
    assert effective_votes(_errors(9, 0.44)) == pytest.approx(2, abs=0.1)


@settings(deadline=None)  # the machine may be busy
@given(judges=st.integers(1, 6), items=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_panel_is_worth_one_vote_at_least_and_a_vote_a_judge_at_most(
    judges: int, items: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    error_JI = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0, NAN], size=(judges, items))
    assert 1 <= effective_votes(error_JI) <= judges + 1e-9


def test_judges_without_errors_cannot_show_that_they_err_apart() -> None:
    assert effective_votes(np.zeros((3, 50))) == 1


def test_a_judge_that_is_heard_twice_is_one() -> None:
    one_I = np.random.default_rng(0).normal(size=50)
    assert effective_votes(np.stack([one_I, one_I])) == pytest.approx(1)


def test_a_missing_vote_is_left_out_and_an_item_without_any_is_no_tie() -> None:
    vote_JI = vote_matrix([[1.0, None, None, 0.0], [0.5, 1.0, None, 0.0]])
    vote_I, voted_I = mean_votes(vote_JI)
    assert voted_I.tolist() == [True, True, False, True]
    assert vote_I.tolist() == pytest.approx([0.75, 1.0, (0.75 + 1.0 + 0.0) / 3, 0.0])
