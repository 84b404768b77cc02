"""The values that the ledgers pass to each other: questions, answers, verified outcomes, and what judges said."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

Interval = tuple[float, float, float]
"""Point, low and high."""


@dataclass(frozen=True, slots=True)
class Question:
    """An item as a judge sees it; gold stays with the program that checks."""

    item: str
    """Identifies the item within the run: task and id."""
    family: str
    """The task that it belongs to; a judge is licensed for one family at a time."""
    prompt: str
    gold: str | None = None
    """The right answer as text where there is one, for known-winner pairs; None for open questions."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote to one item."""

    item: str
    text: str


@dataclass(frozen=True, slots=True)
class VerifiedOutcome:
    """How teacher and student scored on one item; the pair is never taken apart."""

    item: str
    cluster: str
    """What shares its luck: items of one passage or one user have one cluster."""
    teacher: float
    """In [0, 1]."""
    student: float
    """In [0, 1]."""

    def __post_init__(self) -> None:
        for who in ("teacher", "student"):
            score: float = getattr(self, who)
            if not (math.isfinite(score) and 0 <= score <= 1):
                raise ValueError(
                    f"{who}'s score of item {self.item} must be in [0, 1], got {score}"
                )


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """Whether a judge may vote, and what its examination measured."""

    name: str
    licensed: bool
    reasons: tuple[str, ...]
    """One sentence for each part of the examination that it failed, or one that it passed."""
    figures: Mapping[str, float]
    """Measured rates and counts by name."""


@dataclass(frozen=True, slots=True)
class JudgedLedger:
    """What licensed judges say of the student against the teacher; without one, nothing is claimed."""

    claim: str | None
    """One sentence, or None where nothing is claimed."""
    reason: str | None
    """Why nothing is claimed; None beside a claim."""
    win_rate: Interval | None
    """The student's share of wins over the teacher, ties half, with its interval."""
    judges: tuple[JudgeReport, ...]
    effective_votes: float | None
    """How many independent votes the panel is worth."""


NO_JUDGE = JudgedLedger(None, "no judge given", None, (), None)
"""The ledger of a run without judges."""
