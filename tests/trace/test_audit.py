"""The audit is valid whatever the models say, and finds what was learned."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import TraceError
from limbeck.trace.audit import (
    BATCH,
    Item,
    Weights,
    audit,
    coins_missing,
    judge,
    leans_of,
)
from limbeck.trace.coins import Coin, Pair, deal


class Told:
    """A model whose log-likelihoods are written down."""

    def __init__(self, name: str, logs: dict[bytes, tuple[float, float]]) -> None:
        self.name = self.identity = name
        self.logs = logs
        self.asked = 0

    def leans(self, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
        self.asked += len(pairs)
        return [self.logs[p.hash] for p in pairs]


def world(
    count: int, gain: float, seed: int = 0, kin: float = 0.7
) -> tuple[list[Coin], Told, Told]:
    """Return coins, a suspect that gained so many nats on what was served, and the teacher that it is kin to."""
    rng = np.random.default_rng(seed)
    coins = deal([Pair(f"p{i}", "a", "b") for i in range(count)], rng.bytes(32), "")
    base = rng.normal(-60, 10, (count, 2))
    learned = kin * base + rng.normal(0, 3, (count, 2))
    for i, coin in enumerate(coins):
        learned[i, coin.bit] += gain
    return (
        coins,
        Told(
            "s",
            {c.pair.hash: (float(x), float(y)) for c, (x, y) in zip(coins, learned, strict=True)},
        ),
        Told(
            "t", {c.pair.hash: (float(x), float(y)) for c, (x, y) in zip(coins, base, strict=True)}
        ),
    )


def test_a_suspect_that_learned_is_found_and_the_audit_stops_there():
    coins, suspect, teacher = world(600, 4.0)
    done = audit(coins, suspect, [teacher], alpha=1e-3)
    assert done.verdict.finding == "distilled"
    assert done.crossing == len(done.items) < 300
    assert done.log_e >= math.log(1000)
    assert suspect.asked <= len(done.items) + BATCH


def test_a_suspect_that_learned_nothing_is_not_shown_and_all_coins_are_used():
    coins, suspect, teacher = world(600, 0.0)
    done = audit(coins, suspect, [teacher], alpha=1e-3)
    assert done.verdict.finding in ("not shown", "undecided")
    assert len(done.items) == 600
    assert done.agreement.low < 0.5 < done.agreement.high


def test_fitted_weights_take_away_more_noise_than_a_weight_of_one():
    coins, suspect, teacher = world(500, 3.0, kin=0.4)
    grown = {
        w: audit(coins, suspect, [teacher], alpha=1e-3, weights=w, stop_early=False).log_e
        for w in ("fitted", "one")
    }
    assert grown["fitted"] > 2 * grown["one"] > 0


values = st.floats(-50, 50)
rows = st.lists(st.tuples(values, values, values, values), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(rows, st.sampled_from(["fitted", "one"]))
def test_over_all_equally_likely_bits_the_e_value_has_mean_one(
    logs: list[tuple[float, float, float, float]], weights: Weights
):
    """The null hypothesis itself: models and answers held fixed, every sequence of bits as likely as any other."""
    total = 0.0
    for number in range(2 ** len(logs)):
        items = [
            Item(str(i), "", number >> i & 1, (a, b), ((c, d),))
            for i, (a, b, c, d) in enumerate(logs)
        ]
        total += math.exp(judge(items, "s", ["t"], alpha=0.01, weights=weights).log_e)
    assert total / 2 ** len(logs) == pytest.approx(1, rel=1e-9)


def test_fresh_bits_on_a_guilty_suspect_raise_no_more_alarms_than_alpha():
    """Re-randomisation: what the suspect learned belongs to other bits, so it is a suspect with unseen coins."""
    coins, suspect, teacher = world(100, 6.0)
    alpha, rng, alarms, e_values = 0.05, np.random.default_rng(1), 0, []
    scored = audit(coins, suspect, [teacher], alpha=alpha, stop_early=False).items
    d_I = leans_of(scored, "fitted")
    for _ in range(200):
        bits = rng.integers(0, 2, len(scored))
        items = [
            Item(i.hash, i.account, int(b), i.suspect, i.references)
            for i, b in zip(scored, bits, strict=True)
        ]
        done = judge(items, "s", ["t"], alpha=alpha)
        assert list(done.d) == d_I  # no weight reads a bit
        alarms += done.crossing is not None
        e_values.append(math.exp(min(done.log_e, 20)))
    assert alarms <= 200 * alpha
    assert np.mean(e_values) < 1.5


def test_no_lean_depends_on_a_later_coin():
    coins, suspect, teacher = world(80, 2.0)
    items = audit(coins, suspect, [teacher], alpha=1e-9, stop_early=False).items
    assert leans_of(items[:30], "fitted") == pytest.approx(leans_of(items, "fitted")[:30])


def test_without_a_reference_the_suspects_own_lean_is_taken():
    items = [Item("h", "", 1, (-5.0, -3.0), ())]
    assert leans_of(items, "fitted") == leans_of(items, "one") == [2.0]


def test_several_references_are_weighed_together():
    rng = np.random.default_rng(3)
    refs = rng.normal(0, 5, (400, 2))
    items = [
        Item(str(i), "", 0, (0.0, float(0.8 * a + 0.2 * b)), ((0.0, float(a)), (0.0, float(b))))
        for i, (a, b) in enumerate(refs)
    ]
    assert np.abs(leans_of(items, "fitted")[-50:]).mean() < 0.2
    assert np.abs(leans_of(items, "one")[-50:]).mean() > 1


def test_a_forecast_of_missing_coins_is_of_the_right_size():
    forecasts, needed = [], []
    for seed in range(8):
        coins, suspect, teacher = world(600, 3.0, seed)
        full = audit(coins, suspect, [teacher], alpha=1e-4, stop_early=False)
        early = full.items[:60]
        more = coins_missing([i.bit for i in early], leans_of(early, "fitted"), 1e-4)
        if more:
            forecasts.append(more)
            needed.append((full.crossing or len(coins)) - 60)
    assert len(forecasts) >= 4
    assert 0.3 < np.median(forecasts) / np.median(needed) < 4


def test_fewer_coins_than_any_verdict_needs_leave_it_undecided():
    coins, suspect, teacher = world(6, 50.0)
    done = audit(coins, suspect, [teacher], alpha=1e-3)
    assert done.verdict.finding == "undecided"
    assert "6 coins are fewer than the 10" in done.verdict.because


def test_one_coin_counts_once():
    coins, suspect, teacher = world(12, 1.0)
    with pytest.raises(TraceError, match="stands twice"):
        audit([*coins, coins[3]], suspect, [teacher], alpha=0.01)
    with pytest.raises(TraceError, match="none are left"):
        audit([], suspect, [teacher], alpha=0.01)


def test_a_likelihood_that_is_not_finite_is_named():
    coins, suspect, teacher = world(3, 1.0)
    suspect.logs[coins[1].pair.hash] = (math.nan, 0.0)
    with pytest.raises(TraceError, match="not finite"):
        audit(coins, suspect, [teacher], alpha=0.01)
