"""How narrow an account's topics are: the chance that two of its topic words share a bucket.

Pipelines and professional chats are narrow; a general chat, a broad benchmark and a sweep are not.
"""

from array import array
from collections.abc import Sequence

BUCKETS = 128
WINDOW = 4096
"""Topic words after which counts are halved."""


class Breadth:
    """Counts of topic words in 128 buckets."""

    __slots__ = ("_counts", "_pairs", "_total")

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._counts = array("H", bytes(2 * BUCKETS))
        self._total = 0
        self._pairs = 0

    def count(self, bucket: int) -> int:
        """Return how many topic words fell into a bucket."""
        return self._counts[bucket]

    @property
    def total(self) -> int:
        """Topic words that are counted."""
        return self._total

    @property
    def pairs(self) -> int:
        """Pairs of them in the same bucket."""
        return self._pairs

    def step(self, topics: Sequence[int]) -> None:
        """Count the topic words of one request."""
        for topic in topics:
            bucket = topic % BUCKETS
            self._pairs += self._counts[bucket]
            self._counts[bucket] += 1
        self._total += len(topics)
        if self._total >= WINDOW:
            self._counts = array("H", (count // 2 for count in self._counts))
            self._total = sum(self._counts)
            self._pairs = sum(count * (count - 1) // 2 for count in self._counts)

    def narrow(self) -> float:
        """Return the share of pairs of topic words in the same bucket, less what chance gives, in [0, 1]."""
        pairs = self._total * (self._total - 1) // 2
        if pairs == 0:
            return 0.0
        chance = 1.0 / BUCKETS
        return max(0.0, (self._pairs / pairs - chance) / (1.0 - chance))

    def pack(self) -> bytes:
        """Return the state as bytes."""
        return (
            self._total.to_bytes(4, "little")
            + self._pairs.to_bytes(4, "little")
            + self._counts.tobytes()
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Breadth":
        """Return the state that `pack` wrote."""
        breadth = cls()
        breadth._total = int.from_bytes(data[:4], "little")
        breadth._pairs = int.from_bytes(data[4:8], "little")
        breadth._counts = array("H", data[8:PACKED_BYTES])
        return breadth


PACKED_BYTES = 8 + 2 * BUCKETS
