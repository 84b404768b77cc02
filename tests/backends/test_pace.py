from hypothesis import given
from hypothesis import strategies as st

from limbeck.backends.pace import Pace

RATES = st.integers(1, 100_000)
STEPS = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 500)), min_size=1, max_size=60)


@given(rate=RATES, steps=STEPS)
def test_no_minute_sees_more_than_the_rate_and_what_began_it(
    rate: int, steps: list[tuple[float, int]]
) -> None:
    pace, now = Pace(rate), 0.0
    started: list[tuple[float, int]] = []
    for gap, units in steps:
        now += gap
        pace, wait = pace.take(units, now)
        assert wait >= 0
        started.append((now + wait, units))
    for first, (begin, _) in enumerate(started):
        within = [u for at, u in started[first:] if at < begin + 60 - 1e-6]
        assert sum(within) - within[-1] <= rate * (1 + 1e-9)


@given(rate=RATES, units=st.integers(1, 500), now=st.floats(0, 1e6))
def test_a_pause_is_not_saved_up(rate: int, units: int, now: float) -> None:
    pace, wait = Pace(rate).take(units, now)
    assert wait == 0
    _, wait = pace.take(units, now)
    assert abs(wait - units * 60 / rate) < 1e-4


def test_units_that_were_not_used_come_back() -> None:
    pace, _ = Pace(60).take(100, 0.0)
    _, wait = pace.give_back(90).take(1, 0.0)
    assert wait == 10
