"""How much of each request is the account's template: shingles that a good part of its requests contain.

Single-template pipelines are all template, few-shot benchmark runs nearly; agents repeat their instructions. A copier
who wraps each question the same way shows it too, which is why it only weighs together with what the rest says.
"""

from array import array
from collections.abc import Sequence

SLOTS = 256
SAMPLE = 8
"""Smallest shingles of a request that are counted."""
WINDOW = 256
"""Requests after which counts are halved, so that an old template is forgotten."""
SHARE = 0.2
"""Share of requests from which a shingle belongs to a template."""


class Template:
    """Counts of shingles in 256 slots."""

    __slots__ = ("_counts", "_requests")

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._counts = array("H", bytes(2 * SLOTS))
        self._requests = 0

    def step(self, sample: Sequence[int]) -> float:
        """Return the share of a request's shingles that belong to the template, and count them.

        Chance puts `SAMPLE / SLOTS` of all requests into a slot; that is taken off before the comparison.
        """
        counts, requests = self._counts, self._requests
        limit = max(2.0, requests * (SHARE + SAMPLE / SLOTS))
        common = 0
        for value in sample:
            slot = value % SLOTS
            common += counts[slot] >= limit
            counts[slot] += 1
        self._requests = requests + 1
        if self._requests >= 2 * WINDOW:
            self._counts = array("H", (count // 2 for count in counts))
            self._requests //= 2
        return common / len(sample) if sample else 0.0

    def pack(self) -> bytes:
        """Return the state as bytes."""
        return self._requests.to_bytes(4, "little") + self._counts.tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> "Template":
        """Return the state that `pack` wrote."""
        template = cls()
        template._requests = int.from_bytes(data[:4], "little")
        template._counts = array("H", data[4:PACKED_BYTES])
        return template


PACKED_BYTES = 4 + 2 * SLOTS
