"""The guard's evaluation: thresholds keep their budget, baselines do what their papers say, and all of the path runs."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.guard.observation import Observation
from trafficdata import make

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
KEYS = {
    "worst_class", "worst_class_false_accusations", "queries_to_detection_50x25", "gain_released", "adaptive_cost",
    "declared_false_accusations",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _siblings() -> Iterator[None]:
    pytest.importorskip("sklearn")
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def _module(name: str) -> ModuleType:
    """Import from benchmarks/, whatever a folder of tests with the same name has left behind."""
    cached = sys.modules.get(name)
    if cached is not None and getattr(cached, "__file__", None) is None:
        del sys.modules[name]
    return importlib.import_module(name)


def _seen(vector_D: Any, ts: float = 0.0, account: str = "x") -> Any:
    reader = _module("detectors.reader")
    one = Observation(ts, account, "", "m", "/v1/chat/completions", {"messages": []})
    return reader.Seen(one, np.asarray(vector_D, np.float32), 0.0, 0.0)


def _units(rng: np.random.Generator, count: int) -> Any:
    row_ND = rng.normal(size=(count, _module("detectors.reader").DIMENSIONS))
    return row_ND / np.linalg.norm(row_ND, axis=1, keepdims=True)


SCORES = st.lists(st.tuples(st.sampled_from("pqr"), st.integers(-5, 5)), min_size=1, max_size=60)


@given(SCORES, st.sampled_from([0.001, 0.01, 0.1, 0.5]))
def test_a_threshold_keeps_its_budget_in_every_class_and_a_lower_one_does_not(
    scores: list[tuple[str, int]], budget: float
) -> None:
    of = _module("detectors.threshold")
    peak = {str(n): float(score) for n, (_, score) in enumerate(scores)}
    kind = {str(n): name for n, (name, _) in enumerate(scores)}
    above = of.threshold(peak, kind, budget)
    assert all(one.accused <= budget * one.accounts for one in of.accusations(peak, kind, above))
    assert any(one.accused > budget * one.accounts for one in of.accusations(peak, kind, above - 1))


def test_the_worst_class_stands_first() -> None:
    of = _module("detectors.threshold")
    peak = {
        f"{kind}{n}": float(n < bad)
        for kind, bad in (("p", 1), ("q", 3), ("r", 0))
        for n in range(10)
    }
    found = of.accusations(peak, {name: name[0] for name in peak}, 0.5)
    assert [(one.kind, one.accused) for one in found] == [("q", 3), ("p", 1), ("r", 0)]
    assert found[0].upper > found[0].rate == 0.3


def test_a_campaign_is_caught_at_its_first_request_above_the_threshold_and_copies_are_counted() -> (
    None
):
    race = _module("detectors.race")

    class Nth:
        name = "nth"
        count = 0

        def see(self, _seen: object) -> float:
            self.count += 1
            return float(self.count % 5)

    flat = np.zeros(48)
    traffic = [_seen(flat, account="xy"[n % 2]) for n in range(12)]
    copies = {"x": np.array([True] * 6), "y": np.array([False] * 6)}
    found = race.trace([Nth()], traffic, copies)
    assert found.caught("nth", 2.5) == 3
    assert found.caught("nth", 4.0) is None
    assert found.copied_Q.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert race.peaks([Nth()], traffic) == {"nth": {"x": 4.0, "y": 4.0}}


def test_a_rate_is_counted_within_the_hour_and_a_volume_for_ever() -> None:
    volume = _module("detectors.volume")
    rate, total = volume.RateLimit(), volume.Volume()
    traffic = [_seen(np.zeros(48), ts) for ts in (0, 10, 3500, 3605, 9000)]
    assert [rate.see(one) for one in traffic] == [1, 2, 3, 3, 1]
    assert [total.see(one) for one in traffic] == [1, 2, 3, 4, 5]


def test_seat_counts_queries_with_a_similar_predecessor_and_prada_tests_the_distances() -> None:
    nearest = _module("detectors.nearest")
    rng = np.random.default_rng(0)
    seat, prada = nearest.Seat(), nearest.Prada()
    base_ND = _units(rng, 40)
    near_ND = base_ND + 0.001
    near_ND /= np.linalg.norm(near_ND, axis=1, keepdims=True)
    seats, pradas = (
        [detector.see(_seen(row_D)) for row_D in (*base_ND, *near_ND)] for detector in (seat, prada)
    )
    assert seats[39] == 0
    assert seats[-1] == 40
    # Far ones first, near ones then: two heaps of distances are no bell.
    assert pradas[-1] > pradas[39] + 0.1


def test_mmd_is_small_within_the_population_larger_outside_and_silent_before_its_window_is_full() -> (
    None
):
    mmd = _module("detectors.mmd")
    rng = np.random.default_rng(1)
    population_ND = _units(rng, 2000).astype(np.float32)
    inside, outside = (mmd.Mmd(100, population_ND, seed=0) for _ in range(2))
    like = [inside.see(_seen(row_D)) for row_D in _units(rng, 250)]
    centre = _units(rng, 1) + 0.1 * _units(rng, 250)
    other = [
        outside.see(_seen(row_D))
        for row_D in centre / np.linalg.norm(centre, axis=1, keepdims=True)
    ]
    assert like[:99] == [0.0] * 99
    assert 0 < like[-1] < 0.05 < other[-1]


@given(st.integers(0, 700), st.integers(0, 700))
def test_gain_grows_with_the_answers_and_ends_at_all_of_it(few: int, many: int) -> None:
    curve = _module("evaluation.gain").Curve((0.0, 75.0, 600.0), (0.0, 0.4, 1.0), measured=True)
    low, high = sorted((few, many))
    assert curve.share(low) <= curve.share(high)
    assert curve.share(0) == 0
    assert curve.share(600) == 1
    assert curve.share(curve.needed) >= 0.8 > curve.share(curve.needed - 1)


def test_the_measured_gain_is_read_from_the_last_line(tmp_path: Path) -> None:
    of = _module("evaluation.gain")
    line = {
        "pool": 600,
        "points": [{"released": 150, "gain_released": 0.5}, {"released": 75, "gain_released": 0.3}],
    }
    (tmp_path / "gain.txt").write_text("a table\n" + json.dumps(line) + "\n", encoding="utf-8")
    curve = of.Curve.read(tmp_path / "gain.txt")
    assert (curve.measured, curve.pool) == (True, 600)
    assert curve.share(112.5) == pytest.approx(0.4)
    assert of.Curve.read(None).share(300) == 0.5
    assert not of.Curve.read(None).measured


def _price(answers: int, requests: int, *, caught: bool) -> Any:
    of = _module("detectors.adaptive")
    return of.Price(of.Strategy(), 0.0, answers, requests, needed=100, caught=caught)


def test_a_copier_pays_in_requests_or_in_identities_and_who_is_never_caught_needs_one() -> None:
    assert _price(100, 100, caught=False).factor == 1
    assert _price(100, 400, caught=False).factor == 4
    assert _price(10, 10, caught=True).factor == 10
    assert _price(0, 50, caught=True).factor == float("inf")
    assert _price(30, 300, caught=False).identities == 1


def test_the_pareto_front_holds_what_nothing_beats() -> None:
    of = _module("detectors.adaptive")
    cheap, dear, useless = (
        _price(10, 10, caught=True),
        _price(50, 200, caught=True),
        _price(10, 80, caught=True),
    )
    assert of.pareto([useless, dear, cheap]) == [cheap, dear]


def test_the_search_finds_the_way_to_hide_that_is_there() -> None:
    of = _module("detectors.adaptive")

    def rehearse(strategy: Any) -> Any:
        seen = strategy.shell != "dialogue" or not strategy.alike
        return of.Price(strategy, float(seen), 10 if seen else 100, 100, needed=100, caught=seen)

    found = of.search(rehearse, np.random.default_rng(0), first=20, rounds=10)
    assert (found[0].strategy.shell, found[0].strategy.alike, found[0].factor) == (
        "dialogue",
        True,
        1.0,
    )
    assert [price.factor for price in found] == sorted(price.factor for price in found)


def test_neighbours_visit_every_row_once_and_go_to_the_nearest() -> None:
    of = _module("detectors.adaptive")
    row_ND = _units(np.random.default_rng(3), 30)
    order = of.neighbours(row_ND, 4)
    assert sorted(order) == list(range(30))
    assert order[1] == int(np.argsort(-(row_ND @ row_ND[4]))[1])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_of_the_path_runs_and_keeps_its_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guard = _module("guard")
    data = make(tmp_path / "data", each=160)
    options = [
        "--quick",
        "--accounts",
        "24",
        "--seed",
        "3",
        "--data",
        str(data),
        "--work",
        str(tmp_path / "work"),
    ]
    monkeypatch.setattr("sys.argv", ["guard.py", *options, "--unmimic", str(tmp_path / "none")])
    guard.main()
    shown = capsys.readouterr().out
    found = json.loads(shown.splitlines()[-1])
    assert (found["quick"], found["seed"], found["composed"]) == (True, 3, True)
    assert set(found) >= KEYS
    assert set(found["baselines"]) == {
        "rate limit", "volume only", "PRADA", "SEAT", "MMD, window 100", "MMD, window 1500", "text source (control)",
    }  # fmt: skip
    for figures in (found, found["at_worst_class_budget"], *found["baselines"].values()):
        rate, upper = figures["worst_class_false_accusations"]
        assert 0 <= rate <= upper <= 1
        assert 0 <= figures["gain_released"] <= 1
        assert 0 <= figures["caught_50x25"] <= figures["campaigns_50x25"] == 4
    assert "unmimic is left out" in shown
    assert not list((tmp_path / "work").rglob("*.jsonl"))
