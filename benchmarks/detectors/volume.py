"""Rate and volume: how fast, and how much."""

from collections import deque
from typing import Final

from detectors.reader import Seen

WINDOW_S: Final = 3600.0


class RateLimit:
    """Most requests of an account within an hour."""

    name = "rate limit"

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {}

    def see(self, seen: Seen) -> float:
        """Return the requests of the last hour, this one included."""
        recent = self._recent.setdefault(seen.one.account, deque())
        recent.append(seen.one.ts)
        while recent[0] < seen.one.ts - WINDOW_S:
            recent.popleft()
        return float(len(recent))


class Volume:
    """Requests of an account since the log began."""

    name = "volume only"

    def __init__(self) -> None:
        self._count: dict[str, int] = {}

    def see(self, seen: Seen) -> float:
        """Return the requests so far."""
        self._count[seen.one.account] = self._count.get(seen.one.account, 0) + 1
        return float(self._count[seen.one.account])
