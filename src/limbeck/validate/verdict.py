"""KEEPS, LOSES or CAN'T TELL: one test of non-inferiority against the promised margin, with its reasons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from limbeck.stats.anytime import Rounds
from limbeck.stats.multiple import holm
from limbeck.stats.paired import Flips, Paired, difference, flips
from limbeck.stats.power import POWER, more_items, smallest_loss
from limbeck.stats.retention import Retention, margin_test, moments, retention
from limbeck.validate.controls import Control

Kind = Literal["KEEPS", "LOSES", "CANT_TELL"]
WORDS: dict[Kind, str] = {"KEEPS": "KEEPS", "LOSES": "LOSES", "CANT_TELL": "CAN'T TELL"}
"""Each verdict as people read it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be said, and why."""

    kind: Kind
    because: str
    more_items: int | None = None
    """For CANT_TELL: further items like these that would settle it four times out of five; None where none would."""


def decide(
    found: Retention, tasks: Sequence[Paired], margin: float, controls: Sequence[Control]
) -> Verdict:
    """Return the verdict on a student.

    KEEPS where the whole interval lies above the margin, LOSES where it lies below; at 95% each is wrong with a
    probability of 2.5% for a student exactly at the margin. A control that misbehaves takes the claim away.

    Args:
        found: Retention over all tasks.
        tasks: The scores behind it.
        margin: The promised one.
        controls: How the controls did.
    """
    bad = [c for c in controls if c.state == "misbehaves"]
    if bad:
        return Verdict("CANT_TELL", f"the control “{bad[0].name}” misbehaves: {bad[0].because}")
    if found.low is None or found.high is None:
        return Verdict("CANT_TELL", f"no claim is possible: {found.reason}")
    if found.low > margin:
        blind = [c for c in controls if c.name == "damaged" and c.state == "undecided"]
        if blind:
            return Verdict(
                "CANT_TELL", f"the control “damaged” is not told apart: {blind[0].because}"
            )
        return Verdict("KEEPS", f"the whole interval lies above the margin of {margin:.0%}")
    if found.high < margin:
        return Verdict("LOSES", f"the whole interval lies below the margin of {margin:.0%}")
    more = _more(found, tasks, margin)
    words = (
        "retention is too near to it for any practical number of items"
        if more is None
        else f"about {more:,} more items like these would settle it with a chance of {POWER:.0%}"
    )
    return Verdict("CANT_TELL", f"the interval holds the margin of {margin:.0%}; {words}", more)


def _more(found: Retention, tasks: Sequence[Paired], margin: float) -> int | None:
    """Return how many more items would settle it; betting needs as many as shrink its own interval so far."""
    more = more_items(
        moments(tasks, ratio=margin), margin, found.items, confidence=found.confidence
    )
    if more is None or found.method != "betting" or found.point is None:
        return more
    if found.low is None or found.high is None or found.point == margin:
        return None
    reach = found.point - found.low if found.point > margin else found.high - found.point
    needed = found.items * (reach / (found.point - margin)) ** 2
    return max(more, math.ceil(needed - found.items))


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """One task by itself, corrected for how many there are."""

    name: str
    kind: Kind
    retention: Retention
    flips: Flips | None
    p_keeps: float
    """Holm-adjusted over the tasks; so is the next."""
    p_loses: float
    scores: tuple[float, float]
    """Mean score of teacher and student, chance not taken off."""
    chance: float
    """Mean chance level."""
    difference: tuple[float, float, float] | None
    """Student minus teacher in mean score, with its interval."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        found = self.retention
        return {
            "task": self.name,
            "verdict": self.kind,
            "items": found.items,
            "clusters": found.clusters,
            "chance": self.chance,
            "teacher": self.scores[0],
            "student": self.scores[1],
            "difference": self.difference and list(self.difference),
            "retention": triple(found),
            "retention_reason": found.reason,
            "retention_method": found.method,
            "lost": self.flips and self.flips.lost,
            "gained": self.flips and self.flips.gained,
            "mcnemar_p": self.flips and self.flips.p_value,
            "p_keeps_holm": self.p_keeps,
            "p_loses_holm": self.p_loses,
        }


def each_task(
    tasks: Mapping[str, Paired],
    margin: float,
    *,
    confidence: float,
    seed: int,
    played: Mapping[str, Rounds] | None = None,
) -> list[TaskVerdict]:
    """Return the verdict of every task by itself; a family of tests, so p-values are Holm's over the tasks.

    Args:
        tasks: Name to scores.
        margin: The promised one.
        confidence: Of the intervals, each for itself.
        seed: For betting.
        played: The rounds of each task, where scoring stopped when the evidence sufficed.
    """
    rounds = played or {}
    tests = [
        margin_test([task], margin, played=rounds.get(name), seed=seed)
        for name, task in tasks.items()
    ]
    keeps = holm([t.p_keeps for t in tests])
    loses = holm([t.p_loses for t in tests])
    side = (1 - confidence) / 2
    made: list[TaskVerdict] = []
    for (name, task), p_keeps, p_loses in zip(tasks.items(), keeps, loses, strict=True):
        found = retention([task], confidence, played=rounds.get(name), seed=seed)
        kind: Kind = "CANT_TELL"
        if found.known and p_keeps <= side:
            kind = "KEEPS"
        elif found.known and p_loses <= side:
            kind = "LOSES"
        apart = difference(task, confidence)
        made.append(
            TaskVerdict(
                name=name,
                kind=kind,
                retention=found,
                flips=flips(task),
                p_keeps=p_keeps,
                p_loses=p_loses,
                scores=(float(task.teacher_I.mean()), float(task.student_I.mean())),
                chance=float(task.chance_I.mean()),
                difference=apart and (apart.value, apart.low, apart.high),
            )
        )
    return made


def triple(found: Retention) -> list[float] | None:
    """Return [point, low, high], or None where nothing is claimed."""
    if found.point is None or found.low is None or found.high is None:
        return None
    return [found.point, found.low, found.high]


def detectable(tasks: Sequence[Paired], confidence: float) -> float | None:
    """Return how far below 1 retention must lie for these items to show it, four times out of five."""
    return smallest_loss(moments(tasks), sum(t.items for t in tasks), confidence=confidence)
