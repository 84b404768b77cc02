"""How one model did on one item, and two models on the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from limbeck.errors import ScoringError
from limbeck.stats.paired import Paired, pair
from limbeck.validate.ledger import VerifiedOutcome


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model on one item."""

    item: str
    cluster: str
    chance: float
    score: float
    """In [0, 1]."""
    text: str | None = None
    """What it wrote; None where it weighed choices or only the score is known."""
    choice: int | None = None
    """The choice that it finds likeliest; None where it wrote."""
    confidence: float | None = None
    """Its probability of that choice among all."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; what is absent is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


Outcomes = Mapping[str, Sequence[Outcome]]
"""Task name to the outcomes of one model, in the order of the items."""


def paired(teacher: Sequence[Outcome], student: Sequence[Outcome]) -> Paired:
    """Put two models' outcomes on one task side by side.

    Raises:
        ScoringError: They are not of the same items.
    """
    ours, theirs = {o.item: o for o in teacher}, {o.item: o for o in student}
    apart = ours.keys() ^ theirs.keys()
    if apart:
        raise ScoringError(
            f"teacher and student were not scored on the same items: {sorted(apart)[0]!r} has one score "
            f"({len(apart)} such items)"
        )
    return pair(
        [o.score for o in teacher],
        [theirs[o.item].score for o in teacher],
        [o.chance for o in teacher],
        [o.cluster for o in teacher],
    )


def verified(
    task: str, teacher: Sequence[Outcome], student: Sequence[Outcome]
) -> list[VerifiedOutcome]:
    """Return paired outcomes under names that are unique within the run."""
    theirs = {o.item: o.score for o in student}
    return [
        VerifiedOutcome(f"{task}/{o.item}", f"{task}/{o.cluster}", o.score, theirs[o.item])
        for o in teacher
    ]
