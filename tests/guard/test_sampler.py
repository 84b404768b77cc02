"""A flood is sampled by chance; everybody else is looked at in full; all that was skipped is counted."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.pace import Pace
from limbeck.guard.sampler import Sampler


def test_the_first_requests_are_all_looked_at_and_a_flood_at_the_saved_pace() -> None:
    sampler = Sampler(600, 5.0, random.Random(1))  # noqa: S311
    looked = [sampler.looks("a", number / 1000) for number in range(60_000)]
    assert all(looked[:600])
    assert 200 <= sum(looked[30_000:]) <= 420  # 30 s at 5 a second, saved or drawn
    assert sampler.skipped() == {"a": looked.count(False)}
    assert sampler.skipped() == {}


def test_who_keeps_below_the_pace_is_always_looked_at() -> None:
    sampler = Sampler(10, 5.0, random.Random(1))  # noqa: S311
    assert all(sampler.looks("a", number / 5) for number in range(5_000))


def test_one_flood_takes_nobody_elses_look() -> None:
    sampler = Sampler(10, 1.0, random.Random(1))  # noqa: S311
    for number in range(10_000):
        sampler.looks("flood", number / 1000)
    assert all(sampler.looks(f"quiet {number}", 10.0) for number in range(100))


def test_the_look_cannot_be_timed() -> None:
    sampler = Sampler(1, 5.0, random.Random(1))  # noqa: S311
    looked = [sampler.looks("a", number / 100) for number in range(100_000)]
    by_phase = [sum(looked[20_000 + phase :: 20]) for phase in range(20)]
    assert min(by_phase) > 0


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), max_size=200))
def test_clocks_that_jump_lose_no_count(times: list[float]) -> None:
    sampler = Sampler(5, 1.0, random.Random(1))  # noqa: S311
    looked = [sampler.looks("a", now) for now in times]
    assert sum(sampler.skipped().values()) == looked.count(False)


@settings(deadline=None)
@given(st.lists(st.floats(0, 50), min_size=1, max_size=200), st.integers(1, 120), st.integers(1, 5))
def test_a_pace_is_never_exceeded(gaps: list[float], per_minute: int, burst: int) -> None:
    pace, now, passed = Pace(per_minute, burst), 0.0, 0
    for gap in gaps:
        now += gap
        wait = pace.wait_s("a", now)
        assert wait >= 0
        passed += wait == 0
    assert passed <= burst + now * per_minute / 60 + 1e-6
