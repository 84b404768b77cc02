import itertools
import math
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_expit, logsumexp

from limbeck.stats.coins import (
    BETS,
    fewest_coins,
    first_crossing,
    leaning,
    log_e_path,
    log_e_value,
    log_growth,
    threshold,
)

LEANS = st.floats(-1e3, 1e3)
BET_GRIDS = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=6)


@given(st.lists(LEANS, max_size=8), BET_GRIDS)
def test_the_mean_over_all_bits_is_one_whatever_the_leanings(
    leans: list[float], bets: list[float]
) -> None:
    total = sum(
        math.exp(log_e_value(zip(bits, leans, strict=True), bets))
        for bits in itertools.product((0, 1), repeat=len(leans))
    )
    assert total / 2 ** len(leans) == pytest.approx(1, rel=1e-9)


@given(LEANS, st.floats(1e-6, 1e3))
def test_a_coin_at_most_doubles_the_evidence_and_its_two_sides_are_fair(
    lean: float, bet: float
) -> None:
    up, down = log_growth(lean, bet), log_growth(-lean, bet)
    assert max(up, down) <= math.log(2)
    assert math.exp(up) + math.exp(down) == pytest.approx(2)


@given(st.lists(st.tuples(st.integers(0, 1), LEANS), min_size=1, max_size=60), BET_GRIDS)
def test_the_path_is_scipys(coins: list[tuple[int, float]], bets: list[float]) -> None:
    lean_I = np.array([d if b else -d for b, d in coins])
    growth_LI = np.log(2) + log_expit(np.array(bets)[:, None] * lean_I)
    expected_I = logsumexp(growth_LI.cumsum(-1), axis=0) - np.log(len(bets))
    np.testing.assert_allclose(list(log_e_path(coins, bets)), expected_I, rtol=1e-9, atol=1e-9)


@given(st.lists(st.tuples(st.integers(0, 1), LEANS), max_size=20), st.randoms())
def test_reordering_wins_nothing(coins: list[tuple[int, float]], order: random.Random) -> None:
    other = list(coins)
    order.shuffle(other)
    assert log_e_value(other) == pytest.approx(log_e_value(coins), rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 1), LEANS), max_size=20))
def test_swapping_the_names_of_the_two_answers_changes_nothing(
    coins: list[tuple[int, float]],
) -> None:
    swapped = [(1 - b, -d) for b, d in coins]
    assert log_e_value(swapped) == log_e_value(coins)


def test_false_alarms_stay_below_alpha_at_every_stopping_time() -> None:
    """4,000 suspects that are watched for 200 coins each and stopped at the first crossing."""
    rng = np.random.default_rng(0)
    alpha, runs, coins = 0.05, 4000, 200
    lean_RI = rng.standard_t(2, (runs, coins)) * rng.choice([-1, 1], (runs, coins))
    growth_RLI = np.log(2) + log_expit(np.array(BETS)[None, :, None] * lean_RI[:, None])
    path_RI = logsumexp(growth_RLI.cumsum(-1), axis=1) - np.log(len(BETS))
    alarms = int((path_RI.max(-1) >= threshold(alpha)).sum())
    assert alarms <= alpha * runs
    assert alarms > 0  # a test that never rings shows nothing


def test_a_suspect_that_leans_to_what_was_served_is_found_at_any_scale() -> None:
    for scale in (0.05, 0.5, 5.0, 50.0):
        rng = np.random.default_rng(1)
        bits = rng.integers(0, 2, 2000)
        d = scale * ((2 * bits - 1) * 0.5 + rng.normal(size=2000))
        found = first_crossing(log_e_path(zip(bits.tolist(), d.tolist(), strict=True)), alpha=0.001)
        assert found is not None
        assert found < 150


@given(st.floats(1e-9, 0.999))
def test_no_verdict_comes_from_fewer_coins_than_doubling_allows(alpha: float) -> None:
    perfect = itertools.repeat((1, 1e9), 64)
    assert first_crossing(log_e_path(perfect), alpha) == fewest_coins(alpha)


def test_leaning_is_the_suspects_preference_beyond_the_references() -> None:
    assert leaning((-10.0, -7.0), (-9.0, -8.0)) == 2.0
    assert leaning((-9.0, -8.0), (-9.0, -8.0)) == 0.0


@pytest.mark.parametrize("coin", [(2, 0.0), (0, math.nan), (1, math.inf)])
def test_a_coin_that_is_none_is_refused(coin: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="coin 1 needs a bit 0 or 1 and a finite d"):
        log_e_value([(1, 0.5), coin])


@pytest.mark.parametrize("bets", [(), (0.0,), (1.0, -1.0), (math.inf,)])
def test_a_bet_that_could_not_be_placed_is_refused(bets: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="bets must be numbers above 0"):
        log_e_value([(1, 0.5)], bets)


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, limbeck.stats.coins; "
        "print([m for m in ('numpy', 'scipy', 'torch') if m in sys.modules])"
    )
    words = [sys.executable, "-c", code]
    out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"
