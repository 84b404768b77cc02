"""The time shape of an account: flatness over the day, bursts, evenness of gaps.

Pipelines, benchmark runs and agents are flat and bursty too; only people sleep. A clock that jumps back gives a
gap of nothing, one that jumps forward a gap like any other long one: neither can push a value out of [0, 1].
"""

import math
import struct
from array import array
from dataclasses import dataclass

HOURS = 24
FAST_SECONDS = 2.0
"""A gap below what reading an answer and writing a question takes."""
_DAY = 86_400.0
_HEAD = struct.Struct("<dIIdd")
_LIMIT = 60_000


@dataclass(frozen=True, slots=True)
class Shape:
    """`flat` is the entropy of hours, 1 for all alike; `fast` the share of gaps below 2 s; `even` 1 for equal gaps."""

    flat: float
    fast: float
    even: float


class Rhythm:
    """Hours of the day counted, and moments of the gaps' logarithms."""

    __slots__ = ("_fast", "_gaps", "_hours", "_last", "_log", "_square")

    def __init__(self) -> None:
        """Start before the first request."""
        self._hours = array("H", bytes(2 * HOURS))
        self._last = -math.inf
        self._gaps = 0
        self._fast = 0
        self._log = 0.0
        self._square = 0.0

    def step(self, ts: float) -> None:
        """Take in the time of one request, in seconds since 1970."""
        hour = int(ts % _DAY // 3600) % HOURS
        self._hours[hour] += 1
        if self._hours[hour] >= _LIMIT:
            self._hours = array("H", (count // 2 for count in self._hours))
        if self._last > -math.inf:
            gap = max(0.0, ts - self._last)
            log = math.log(max(gap, 0.01))
            self._gaps += 1
            self._fast += gap < FAST_SECONDS
            rate = 1.0 / min(self._gaps, 1024)
            self._log += (log - self._log) * rate
            self._square += (log * log - self._square) * rate
            if self._gaps >= 1 << 20:
                self._gaps, self._fast = self._gaps // 2, self._fast // 2
        self._last = max(self._last, ts)

    def shape(self) -> Shape:
        """Return the shape so far."""
        total = sum(self._hours)
        entropy = -sum(c / total * math.log(c / total) for c in self._hours if c) if total else 0.0
        most = math.log(min(HOURS, total)) if total > 1 else 1.0
        spread = max(0.0, self._square - self._log * self._log)
        return Shape(
            flat=entropy / most if most > 0 else 0.0,
            fast=self._fast / self._gaps if self._gaps else 0.0,
            even=1.0 / (1.0 + spread) if self._gaps >= 3 else 0.0,
        )

    def pack(self) -> bytes:
        """Return the state as bytes."""
        head = _HEAD.pack(self._last, self._gaps, self._fast, self._log, self._square)
        return head + self._hours.tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> "Rhythm":
        """Return the state that `pack` wrote."""
        rhythm = cls()
        rhythm._last, rhythm._gaps, rhythm._fast, rhythm._log, rhythm._square = _HEAD.unpack_from(
            data
        )
        rhythm._hours = array("H", data[_HEAD.size : PACKED_BYTES])
        return rhythm


PACKED_BYTES = _HEAD.size + 2 * HOURS
