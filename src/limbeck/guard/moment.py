"""Times as people write them: a date, a time, or how long from now."""

import re
from datetime import UTC, datetime

from limbeck.errors import AccountError

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SPAN = re.compile(r"(\d{1,6})([mhdw])")


def parse_span(text: str) -> float:
    """Read how long, such as `30d`, in seconds.

    Raises:
        AccountError: It is not a number of m, h, d or w.
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise AccountError(f"a span looks like 90m, 12h, 30d or 8w, got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def parse_moment(text: str, now: float) -> float:
    """Read a time: `30d` from now, `2027-01-31`, or `2027-01-31T12:00` (UTC unless it says otherwise).

    Raises:
        AccountError: It is none of these, or lies outside of the years 1970 to 9998.
    """
    if _SPAN.fullmatch(text.strip()):
        return now + parse_span(text)
    try:
        at = datetime.fromisoformat(text.strip())
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < 253_370_764_800:
        raise AccountError(f"a time looks like 30d, 2027-01-31 or 2027-01-31T12:00, got {text!r}")
    return seconds
