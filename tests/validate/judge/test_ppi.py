import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from limbeck.validate.judge.ppi import CORNER, Corrected, corrected_mean, pool

OUTCOMES = np.array([1, 0, 0.5, 1, 1, 0, 0, 1, 0.5, 0, 1, 0, 0, 1, 0.5, 1])
VOTES = np.array([1, 0.5, 0.5, 1, 0.5, 0, 0, 1, 1, 0, 0.5, 0.5, 0, 1, 0, 1])
OTHERS = np.array([1, 0, 0.5, 0.5, 0, 1, 0, 1, 0, 0.5] * 4 + [0, 0, 1, 0.5])


def _mean(
    outcome_I: np.ndarray,
    vote_I: np.ndarray,
    vote_N: np.ndarray,
    power: float | None = None,
    corner: float = CORNER,
) -> Corrected:
    ours, others = np.arange(len(vote_I)), np.arange(len(vote_N))
    return corrected_mean(outcome_I, vote_I, ours, vote_N, others, power=power, corner=corner)


# ppi-python 0.2.3 on the arrays above: ppi_mean_pointestimate and the half-width of ppi_mean_ci over 1.959964.
@pytest.mark.parametrize(
    ("power", "value", "error"),
    [(0.0, 0.53125, 0.112402), (0.4, 0.49602273, 0.089384), (1.0, 0.44318182, 0.098940)],
)
def test_value_and_error_are_those_of_the_authors_own_code(
    power: float, value: float, error: float
) -> None:
    found = _mean(OUTCOMES, VOTES, OTHERS, power, corner=0)
    assert found.value == pytest.approx(value, abs=1e-8)
    # Theirs divides by n where ours divides by n - 1.
    assert error < found.error < error * np.sqrt(16 / 15) * 1.0001


def test_the_tuned_estimate_is_that_of_the_authors_own_code() -> None:
    found = _mean(OUTCOMES, VOTES, OTHERS, corner=0)
    assert found.value == pytest.approx(0.4802482, abs=0.003)  # theirs pools the variance of votes
    others = [_mean(OUTCOMES, VOTES, OTHERS, p, corner=0).error for p in (0.0, 0.3, 0.9, 1.0)]
    assert found.error < min(others)


def test_without_votes_it_is_the_mean_with_students_interval() -> None:
    found = _mean(OUTCOMES, VOTES, np.array([]), corner=0)
    theirs = stats.ttest_1samp(OUTCOMES, 0).confidence_interval(0.95)
    whole = pool([found], [1.0], 0.95)
    assert (whole.low, whole.high) == pytest.approx((theirs.low, theirs.high))
    assert found.power == 0


def test_clusters_of_one_item_are_no_clusters_and_repeated_items_add_nothing() -> None:
    twice = np.repeat
    clusters = twice(np.arange(16), 3)
    single = _mean(OUTCOMES, VOTES, OTHERS)
    tripled = corrected_mean(
        twice(OUTCOMES, 3), twice(VOTES, 3), clusters, OTHERS, np.arange(len(OTHERS))
    )
    assert tripled.value == pytest.approx(single.value)
    assert tripled.error == pytest.approx(single.error)
    assert tripled.verified == 16


@settings(deadline=None)  # the machine may be busy
@given(seed=st.integers(0, 500), constant=st.floats(0, 1))
def test_votes_that_tell_nothing_get_no_power(seed: int, constant: float) -> None:
    rng = np.random.default_rng(seed)
    y = rng.choice([0, 0.5, 1], size=20)
    found = _mean(y, np.full(20, constant), np.full(50, constant), corner=0)
    assert found.power == 0
    assert found.value == pytest.approx(y.mean())


def test_a_few_items_without_an_error_do_not_know_the_mean_exactly() -> None:
    ones = np.ones(10)
    assert _mean(ones, ones, np.ones(500), corner=0).error == 0
    found = pool([_mean(ones, ones, np.ones(500))], [1.0], 0.95)
    assert found.low < 0.8
    assert found.high == 1


def _sample(rng: np.random.Generator, n: int, quality: float) -> tuple[np.ndarray, np.ndarray]:
    y = rng.choice([0.0, 0.5, 1.0], size=n, p=[0.45, 0.25, 0.3])
    noise = rng.choice([0.0, 0.5, 1.0], size=n, p=[0.1, 0.1, 0.8])  # leans heavily to the student
    return y, np.where(rng.random(n) < quality, y, noise)


@pytest.mark.parametrize("quality", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("verified", [20, 100])
def test_the_interval_covers_the_truth_however_biased_the_votes_are(
    quality: float, verified: int
) -> None:
    rng = np.random.default_rng(11)
    truth, covered, runs = 0.25 * 0.5 + 0.3, 0, 1000
    for _ in range(runs):
        y, f = _sample(rng, verified, quality)
        _, g = _sample(rng, 400, quality)
        whole = pool([_mean(y, f, g)], [1.0], 0.95)
        covered += whole.low <= truth <= whole.high
    assert covered / runs >= 0.935  # 2 standard errors below 95%
    assert covered / runs <= (0.975 if verified == 100 else 1)


def test_without_corners_small_samples_of_good_votes_would_be_too_sure() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(500):
        y, f = _sample(rng, 20, 0.95)
        _, g = _sample(rng, 400, 0.95)
        whole = pool([_mean(y, f, g, corner=0)], [1.0], 0.95)
        covered += whole.low <= 0.425 <= whole.high
    assert covered / 500 < 0.93


def test_uncorrected_votes_would_not_cover_it() -> None:
    rng = np.random.default_rng(11)
    _, g = _sample(rng, 400, 0.6)
    assert g.mean() > 0.425 + 4 * g.std() / 20


def test_good_votes_make_the_interval_narrower() -> None:
    rng = np.random.default_rng(3)
    y, f = _sample(rng, 60, 0.95)
    _, g = _sample(rng, 2000, 0.95)
    assert _mean(y, f, g).error < 0.5 * _mean(y, f, np.array([])).error


def test_families_are_weighed_and_their_variances_add() -> None:
    one, other = _mean(OUTCOMES, VOTES, OTHERS), _mean(OUTCOMES[:9], VOTES[:9], OTHERS)
    whole = pool([one, other], [0.25, 0.75], 0.9)
    assert whole.value == pytest.approx(0.25 * one.value + 0.75 * other.value)
    error = np.hypot(0.25 * one.error, 0.75 * other.error)
    assert (whole.high - whole.low) / 2 == pytest.approx(
        error * stats.t.ppf(0.95, _welch(one, other))
    )


def _welch(one: Corrected, other: Corrected) -> float:
    a, b = (0.25 * one.error) ** 2, (0.75 * other.error) ** 2
    return (a + b) ** 2 / (a**2 / one.freedom + b**2 / other.freedom)
