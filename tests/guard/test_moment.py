from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import AccountError
from limbeck.guard.moment import parse_moment, parse_span
from limbeck.guard.plain import moment


@given(seconds=st.integers(0, 253_000_000_000))
def test_a_time_that_was_printed_is_read_again(seconds: int) -> None:
    assert parse_moment(moment(seconds), 0.0) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("12h", 43_200), ("1d", 86_400), ("2w", 1_209_600)],
)
def test_a_span_counts_from_now(text: str, seconds: int) -> None:
    assert parse_span(text) == seconds
    assert parse_moment(text, 1000.0) == 1000 + seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1970-01-02", 86_400), ("1970-01-01T01:00", 3600), ("1970-01-01T01:00+01:00", 0)],
)
def test_a_time_without_a_zone_is_utc(text: str, seconds: int) -> None:
    assert parse_moment(text, 5.0) == seconds


@given(text=st.text(max_size=12))
def test_whatever_is_read_is_a_time_and_nothing_else_escapes(text: str) -> None:
    with suppress(AccountError):
        assert 0 <= parse_moment(text, 0.0) < 253_370_764_800


@pytest.mark.parametrize("text", ["soon", "1969-12-31", "9999-01-01", "5y", "-3d", ""])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(AccountError, match="looks like"):
        parse_moment(text, 0.0)
