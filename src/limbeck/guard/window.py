"""Windows of the UTC calendar: where one starts, and where it ends."""

import calendar
from datetime import UTC, datetime

from limbeck.guard.account import Window

MINUTE_S = 60
DAY_S = 86_400


def span(window: Window, now: float) -> tuple[int, int]:
    """Return the start and the end of the window that a time falls into, in seconds since 1970 UTC.

    A day of UTC without leap seconds has 86,400 seconds, as the system's clock counts them. LIFE has no end.
    """
    match window:
        case Window.MINUTE:
            start = int(now // MINUTE_S) * MINUTE_S
            return start, start + MINUTE_S
        case Window.DAY:
            start = int(now // DAY_S) * DAY_S
            return start, start + DAY_S
        case Window.MONTH:
            return _month(now)
        case Window.LIFE:
            return 0, 1 << 62


def _month(now: float) -> tuple[int, int]:
    at = datetime.fromtimestamp(now, UTC)
    start = datetime(at.year, at.month, 1, tzinfo=UTC)
    days = calendar.monthrange(at.year, at.month)[1]
    return int(start.timestamp()), int(start.timestamp()) + days * DAY_S
