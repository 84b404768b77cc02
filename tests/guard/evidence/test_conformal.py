import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from limbeck.guard.evidence.conformal import Honest, lacking, smallest_alpha

SCORES = arrays(np.float64, st.integers(1, 30), elements=st.floats(-50, 50))


@settings(deadline=None)  # the machine may be busy
@given(SCORES, st.floats(0.5, 6))
def test_one_of_n_plus_1_exchangeable_histories_has_expectation_1(
    score_N: np.ndarray, steepness: float
) -> None:
    """Each of them in turn as the new one: the mean of its e-values is exactly 1, whatever the scores."""
    if len(score_N) < 2:
        return
    e_values = [
        Honest.of(np.delete(score_N, i), steepness).e_value(float(score_N[i]))
        for i in range(len(score_N))
    ]
    assert np.mean(e_values) == pytest.approx(1.0, rel=1e-6)


@settings(deadline=None)  # the machine may be busy
@given(SCORES, st.floats(-60, 60), st.floats(-60, 60))
def test_a_higher_score_is_no_less_evidence_and_never_more_than_n_plus_1(
    score_N: np.ndarray, one: float, other: float
) -> None:
    honest = Honest.of(score_N, 4.0)
    low, high = sorted((one, other))
    assert 0.0 <= honest.e_value(low) <= honest.e_value(high) <= len(score_N) + 1


def test_watching_all_the_time_keeps_the_promise() -> None:
    """Honest histories are random walks; the accused are those whose running e-value ever crosses the limit."""
    rng = np.random.default_rng(0)
    alpha, accused, trials = 0.05, 0, 400
    for _ in range(trials):
        walks = np.cumsum(rng.standard_t(3, (61, 40)), axis=1)
        honest = Honest.of(walks[1:].max(axis=1), 1.0)
        running = np.maximum.accumulate(walks[0])
        accused += max(honest.e_value(float(x)) for x in running) >= 1 / alpha
    assert accused / trials <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / trials)


@given(SCORES.filter(lambda x: len(x) > 12), st.floats(0.1, 0.4))
@settings(deadline=None)
def test_the_limit_is_where_evidence_reaches_the_promise(score_N: np.ndarray, alpha: float) -> None:
    honest = Honest.of(score_N, 4.0)
    limit = honest.limit(alpha)
    assert honest.e_value(limit) == pytest.approx(1 / alpha, rel=1e-6)
    assert honest.e_value(limit - 0.01) < 1 / alpha


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 5000), st.floats(0.0005, 0.4))
def test_what_is_lacking_is_what_the_promise_takes(histories: int, alpha: float) -> None:
    missing = lacking(histories, alpha)
    assert smallest_alpha(histories + missing) <= alpha * (1 + 1e-9) or missing == 0
    assert missing == 0 or smallest_alpha(histories + missing - 1) > alpha * (1 - 1e-9)
    assert lacking(0, 0.001) == 999


def test_nothing_is_promised_without_histories() -> None:
    with pytest.raises(ValueError, match="needs honest histories"):
        Honest.of(np.empty(0), 1.0)
    with pytest.raises(ValueError, match="cannot promise"):
        Honest.of(np.zeros(9), 1.0).limit(0.05)


def test_scores_out_of_this_world_stay_finite() -> None:
    honest = Honest.of(np.array([-100.0, 0.0, 5.0]), 4.0)
    assert honest.e_value(1e9) == pytest.approx(4.0)
    assert honest.e_value(-1e9) == pytest.approx(0.0)
