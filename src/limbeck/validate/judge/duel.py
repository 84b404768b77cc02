"""A duel: two answers to one question, put to a judge in both orders."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from limbeck.validate.judge.ballot import Ballot, Verdict

Side = Literal["left", "right"]

_FLIPPED: dict[Verdict, Verdict] = {"A": "B", "B": "A", "tie": "tie"}
_POINTS: dict[Verdict, float] = {"A": 1.0, "B": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class Duel:
    """Two answers to one question."""

    question: str
    left: str
    right: str

    def ballots(self) -> Iterator[Ballot]:
        """Yield both orders: left as A, then left as B."""
        yield Ballot(self.question, self.left, self.right)
        yield Ballot(self.question, self.right, self.left)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one judge said of a duel; a reply without a verdict stays None and is never a tie."""

    straight: Verdict | None
    """The verdict with the left answer as A."""
    swapped: Verdict | None
    """The verdict with the left answer as B, as the judge gave it."""

    @property
    def heard(self) -> int:
        """How many of the two orders have a verdict."""
        return (self.straight is not None) + (self.swapped is not None)

    @property
    def consistent(self) -> bool:
        """Both orders have a verdict and it is the same one; a judge that always says A is not."""
        return self.heard == 2 and self.straight == self._turned

    @property
    def winner(self) -> Side | None:
        """The answer that won in both orders, if one did."""
        if not self.consistent or self.straight == "tie":
            return None
        return "left" if self.straight == "A" else "right"

    @property
    def share(self) -> float | None:
        """The left answer's share of the win in [0, 1], both orders averaged; None unless both have a verdict."""
        if self.straight is None or self.swapped is None:
            return None
        return (_POINTS[self.straight] + 1 - _POINTS[self.swapped]) / 2

    @property
    def _turned(self) -> Verdict | None:
        return None if self.swapped is None else _FLIPPED[self.swapped]
