from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.guard.account import Window
from limbeck.guard.window import span

TIMES = st.floats(min_value=0, max_value=datetime(2200, 1, 1, tzinfo=UTC).timestamp())
CALENDAR = (Window.MINUTE, Window.DAY, Window.MONTH)


@given(now=TIMES, window=st.sampled_from(CALENDAR))
def test_every_time_lies_in_its_window_and_the_end_of_one_is_the_start_of_the_next(
    now: float, window: Window
) -> None:
    start, end = span(window, now)
    assert start <= now < end
    assert span(window, end)[0] == end
    assert span(window, start) == (start, end)


@given(now=TIMES)
def test_a_month_begins_at_midnight_of_its_first_day(now: float) -> None:
    start, end = span(Window.MONTH, now)
    first = datetime.fromtimestamp(start, UTC)
    assert (first.day, first.hour, first.minute, first.second) == (1, 0, 0, 0)
    assert datetime.fromtimestamp(end, UTC).month == first.month % 12 + 1


@pytest.mark.parametrize("now", [0.0, 1e9, 4e9])
def test_a_life_has_no_end_that_a_clock_would_reach(now: float) -> None:
    start, end = span(Window.LIFE, now)
    assert start <= now < end
