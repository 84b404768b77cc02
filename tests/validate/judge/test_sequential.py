import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.validate.judge.sequential import Betting, next_power


def _ever_missed(values: np.ndarray, truth: float, alpha: float) -> bool:
    """Look after every round, as one who stops when it suits him does."""
    betting = Betting(alpha)
    for value in values:
        betting.bet(float(value))
        low, high = betting.interval()
        if not low <= truth <= high:
            return True
    return False


@pytest.mark.parametrize("truth", [0.5, 0.9])
def test_the_interval_holds_at_every_look_at_once(truth: float) -> None:
    rng = np.random.default_rng(0)
    missed = sum(_ever_missed(rng.random(120) < truth, truth, 0.1) for _ in range(120))
    assert missed / 120 <= 0.1 + 0.05  # 2 standard errors


def test_an_ordinary_interval_looked_at_as_often_would_not_hold() -> None:
    rng = np.random.default_rng(0)
    rounds = np.arange(1, 121)
    missed = 0
    for _ in range(120):
        draws = rng.random(120) < 0.5
        far = np.abs(np.cumsum(draws) / rounds - 0.5) > 1.645 * 0.5 / np.sqrt(rounds)
        missed += bool(far[9:].any())
    assert missed / 120 > 0.25


def test_corrected_rounds_cover_the_truth_though_the_votes_are_biased() -> None:
    rng = np.random.default_rng(4)
    truth, missed = 0.45, 0
    for _ in range(80):
        betting = Betting(0.1)
        known: list[tuple[float, float]] = []
        ever = False
        for _ in range(80):
            power = next_power(known, 3)
            y = (rng.random(4) < truth).astype(float)
            f = np.where(rng.random(4) < 0.7, y, 1.0)
            betting.bet(float(power * f[1:].mean() + y[0] - power * f[0]))
            known.append((float(y[0]), float(f[0])))
            low, high = betting.interval()
            ever |= not low <= truth <= high
        missed += ever
    assert missed / 80 <= 0.1 + 0.067  # 2 standard errors


def test_rounds_of_unlike_weight_give_the_weighted_mean() -> None:
    rng = np.random.default_rng(2)
    betting = Betting(0.05)
    for _ in range(600):
        large = rng.random() < 0.5
        betting.bet(float(rng.random() < (0.8 if large else 0.2)), 1.0 if large else 0.25)
    low, high = betting.interval()
    assert low < (0.8 + 0.25 * 0.2) / 1.25 < high
    assert low > 0.5


@settings(deadline=None)  # the machine may be busy
@given(seed=st.integers(0, 200), n=st.integers(1, 40))
def test_more_rounds_never_widen_the_interval(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    betting = Betting(0.05)
    low, high = betting.interval()
    assert (low, high) == (0, 1)
    for _ in range(n):
        betting.bet(float(rng.uniform(-1, 2)), float(rng.uniform(0.01, 1)))
        closer = betting.interval()
        assert low <= closer[0] < closer[1] <= high
        low, high = closer


def test_rounds_that_vary_little_need_few_looks() -> None:
    calm, wild = Betting(0.05), Betting(0.05)
    rng = np.random.default_rng(0)
    for _ in range(100):
        calm.bet(float(0.5 + rng.uniform(-0.1, 0.1)))
        wild.bet(float(rng.choice([-1, 2])))
    width = [high - low for low, high in (calm.interval(), wild.interval())]
    assert width[0] < width[1] / 3


@pytest.mark.parametrize(("value", "weight"), [(2.1, 1), (-1.1, 1), (0.5, 0), (0.5, 1.1)])
def test_bets_out_of_range_are_refused(value: float, weight: float) -> None:
    with pytest.raises(ValueError, match="a round needs"):
        Betting(0.05).bet(value, weight)


@pytest.mark.parametrize("alpha", [0, 1])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Betting(alpha)


def test_the_next_power_is_the_regression_slope_shrunk_for_the_others_noise() -> None:
    rng = np.random.default_rng(0)
    f = rng.random(5000)
    y = np.clip(0.8 * f + rng.normal(0, 0.05, 5000), 0, 1)
    known = list(zip(y.tolist(), f.tolist(), strict=True))
    assert next_power(known, 4) == pytest.approx(0.8 / (1 + 1 / 4), abs=0.02)
    assert next_power(known, 0) == 0
    assert next_power(known[:3], 4) == 0.5
