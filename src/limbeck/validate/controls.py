"""Controls of every run: models whose retention is known, so that an instrument that is broken shows.

The teacher asked a second time must keep everything; a student whose weights were drowned in noise must lose; and
the student before its distillation must not be better than after. A control that misbehaves takes the headline away.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from limbeck.model import LocalModel
from limbeck.stats.paired import Paired
from limbeck.stats.retention import Retention, margin_test, retention

State = Literal["as expected", "undecided", "misbehaves", "not run"]
EXPECTED = {
    "teacher again": "the interval holds 100%",
    "undistilled": "it is not better than the student",
    "damaged": "it loses",
}
"""Every control, and what an instrument in order shows of it."""
DAMAGE = 1.0
"""Noise of the damaged student, in standard deviations of each weight matrix."""


@dataclass(frozen=True, slots=True)
class Control:
    """One control and how it did."""

    name: str
    state: State
    because: str
    retention: Retention | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        found = self.retention
        known = found is not None and found.low is not None
        return {
            "expected": EXPECTED[self.name],
            "state": self.state,
            "because": self.because,
            "retention": [found.point, found.low, found.high]
            if found is not None and known
            else None,
            "items": found.items if found is not None else 0,
        }


def teacher_again(tasks: Sequence[Paired], *, confidence: float, seed: int) -> Control:
    """Return whether the teacher, asked twice, is not told apart from itself.

    Args:
        tasks: The teacher's first scores, and its second ones in the student's place.
        confidence: Of the interval.
        seed: For betting.
    """
    found = retention(tasks, confidence, seed=seed)
    apart = sum(int((t.teacher_I != t.student_I).sum()) for t in tasks)
    noise = f"{apart} of {found.items} items scored differently the second time"
    if found.low is None or found.high is None:
        return Control("teacher again", "undecided", noise, found)
    inside = found.low <= 1 <= found.high
    state: State = "as expected" if inside else "misbehaves"
    return Control("teacher again", state, noise, found)


def damaged_student(
    tasks: Sequence[Paired], margin: float, *, how: str, confidence: float, seed: int
) -> Control:
    """Return whether a student that was damaged on purpose is seen to lose.

    Args:
        tasks: The teacher's scores, and the damaged student's.
        margin: The promised one.
        how: What was done to it, in a few words.
        confidence: Of the interval.
        seed: For betting.
    """
    found = retention(tasks, confidence, seed=seed)
    if found.low is None or found.high is None:
        return Control("damaged", "undecided", f"{how}; {found.reason}", found)
    shown = f"{how}; it keeps {found.point:.0%} [{found.low:.0%}, {found.high:.0%}]"
    if found.high < margin:
        return Control("damaged", "as expected", shown, found)
    state: State = "misbehaves" if found.low > margin else "undecided"
    return Control("damaged", state, shown, found)


def undistilled_start(
    against_student: Sequence[Paired],
    against_teacher: Sequence[Paired],
    *,
    confidence: float,
    seed: int,
) -> Control:
    """Return whether the student before its distillation is no better than after.

    Args:
        against_student: The student's scores in the teacher's place, and the start's in the student's.
        against_teacher: The teacher's scores, and the start's.
        confidence: Of the test and the interval.
        seed: For betting.
    """
    found = retention(against_teacher, confidence, seed=seed)
    better = margin_test(against_student, 1.0, seed=seed).p_keeps
    kept = "no claim" if found.point is None else f"{found.point:.0%}"
    shown = f"it keeps {kept} of the teacher's quality; p = {better:.3g} for being better than the student"
    state: State = "misbehaves" if better < (1 - confidence) / 2 else "as expected"
    return Control("undistilled", state, shown, found)


def not_run(name: str, why: str) -> Control:
    """Return a control that could not be run, with the reason."""
    return Control(name, "not run", why)


def damaged(local: LocalModel, *, strength: float = DAMAGE, seed: int) -> LocalModel:
    """Return a copy of a model with noise on every weight matrix; the model itself stays as it is.

    Args:
        local: The model.
        strength: Standard deviation of the noise over that of each matrix; 0 changes nothing.
        seed: Seeds the noise.
    """
    import torch

    model = copy.deepcopy(local.model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() < 2:
                continue
            spread = strength * float(weight.float().std())
            noise = torch.randn(weight.shape, generator=generator) * spread
            weight.add_(noise.to(device=weight.device, dtype=weight.dtype))
    return replace(local, name=f"{local.name}, damaged", model=model)
