"""How much of each request is new ground for its account, and how much ground it has covered.

A sweep keeps finding new ground; so does a benchmark run on its first pass, and a curious chat. A pipeline
saturates at once, a second pass over a suite is all repeats.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BITS = 8192
"""Of each of two generations; while one fills, the other is still asked."""
FULL = 2048
"""Bits after which a generation is set aside: a quarter of the bits, so that a false `known` stays below a quarter."""
SMALLEST = 48
"""Hashes of the smallest-values sketch: distinct cells to about 1 part in 7."""
CELLS = 4
"""Shingles of a request that count as its cells."""
_SPREAD, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
"""Cells are the smallest shingles of their requests, so they are spread out again before the smallest are kept."""
_TWO_64 = float(1 << 64)
_HEAD = struct.Struct("<III")


@dataclass(frozen=True, slots=True)
class Covered:
    """Of one request: shares of its cells and topics that are new, and whether it was asked before.

    Shares are corrected for the chance of looking known, so they are right on average and may pass 1 on one request.
    """

    fresh: float
    growth: float
    repeat: float


class Ground:
    """The ground of one account or cluster: two bit fields and the smallest hashes of its cells."""

    __slots__ = ("_largest", "_old", "_seen", "_smallest", "_used", "_used_before")

    def __init__(self) -> None:
        """Start with nothing covered."""
        self._seen = bytearray(BITS // 8)
        self._old = bytearray(BITS // 8)
        self._used = 0
        self._used_before = 0
        self._smallest: set[int] = set()
        self._largest = 1 << 64

    def step(self, cells: Sequence[int], topics: Sequence[int], identity: int) -> Covered:
        """Say how new a request is, and remember it."""
        load = 1.0 - self._load()
        repeat = 1.0 - self._new((identity,))
        covered = Covered(
            fresh=self._new(cells) / load,
            growth=self._new(topics) / load,
            repeat=repeat,
        )
        if self._used >= FULL:
            self._old, self._seen = self._seen, bytearray(BITS // 8)
            self._used, self._used_before = 0, self._used
        return covered

    def remember(self, cells: Iterable[int]) -> None:
        """Count cells towards the ground that is covered, each once over the whole history."""
        for cell in cells:
            value = cell * _SPREAD & _MASK
            if value < self._largest and value not in self._smallest:
                self._smallest.add(value)
                if len(self._smallest) > SMALLEST:
                    self._smallest.remove(max(self._smallest))
                    self._largest = max(self._smallest)

    def distinct(self) -> float:
        """Return about how many different cells were covered (Bar-Yossef et al., RANDOM 2002)."""
        if len(self._smallest) < SMALLEST:
            return float(len(self._smallest))
        return (SMALLEST - 1) * _TWO_64 / (self._largest + 1)

    def pack(self) -> bytes:
        """Return the state as bytes."""
        smallest = sorted(self._smallest)
        return (
            _HEAD.pack(self._used, self._used_before, len(smallest))
            + bytes(self._seen)
            + bytes(self._old)
            + struct.pack(f"<{SMALLEST}Q", *smallest, *[0] * (SMALLEST - len(smallest)))
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Ground":
        """Return the state that `pack` wrote."""
        ground = cls()
        ground._used, ground._used_before, kept = _HEAD.unpack_from(data)
        half = BITS // 8
        ground._seen = bytearray(data[_HEAD.size : _HEAD.size + half])
        ground._old = bytearray(data[_HEAD.size + half : _HEAD.size + 2 * half])
        smallest = struct.unpack_from(f"<{SMALLEST}Q", data, _HEAD.size + 2 * half)[:kept]
        ground._smallest = set(smallest)
        if kept == SMALLEST:
            ground._largest = max(smallest)
        return ground

    def _load(self) -> float:
        """The chance that a new item looks known, in expectation."""
        return 1.0 - (1.0 - self._used / BITS) * (1.0 - self._used_before / BITS)

    def _new(self, items: Sequence[int]) -> float:
        new = 0
        seen, old = self._seen, self._old
        for item in items:
            index, bit = (item >> 3) % (BITS // 8), 1 << (item & 7)
            if not (seen[index] | old[index]) & bit:
                new += 1
            if not seen[index] & bit:
                seen[index] |= bit
                self._used += 1
        return new / len(items) if items else 0.0


PACKED_BYTES = _HEAD.size + 2 * (BITS // 8) + 8 * SMALLEST
