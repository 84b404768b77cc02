"""How much new ground an account or campaign was given: novel answers and their tokens, against a budget.

About 800 curated traces suffice to move a student (arXiv 2508.09883), so yield is the damage that evidence has to forestall.
It is no evidence: an honest chat is given new ground all day.
"""

import struct

_HEAD = struct.Struct("<dd")


class Meter:
    """Novel answers and novel tokens released so far."""

    __slots__ = ("answers", "tokens")

    def __init__(self) -> None:
        """Start with nothing released."""
        self.answers = 0.0
        self.tokens = 0.0

    def step(self, fresh: float, tokens: float) -> None:
        """Count an answer by the share of its question that was new ground; an unanswered one counts nothing.

        Args:
            fresh: In [0, 1].
            tokens: Answer tokens released.
        """
        if tokens > 0:
            self.answers += fresh
            self.tokens += fresh * tokens

    def spent(self, traces: int, tokens: int) -> float:
        """Return the larger share of the two budgets that was released; above 1 when a budget is used up."""
        return max(self.answers / traces, self.tokens / tokens)

    def pack(self) -> bytes:
        """Return the state as bytes."""
        return _HEAD.pack(self.answers, self.tokens)

    @classmethod
    def unpack(cls, data: bytes) -> "Meter":
        """Return the state that `pack` wrote."""
        meter = cls()
        meter.answers, meter.tokens = _HEAD.unpack_from(data)
        return meter


PACKED_BYTES = _HEAD.size
