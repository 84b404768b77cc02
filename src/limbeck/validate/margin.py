"""What is promised before anything is scored: the margin, the error, the tasks and the models, under one hash."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.artefact import sha256_json
from limbeck.errors import RecipeError

CONFIDENCE = 0.95
"""Of every interval; a verdict for or against has half of what is left on its side."""


@dataclass(frozen=True, slots=True)
class Promise:
    """Everything that could be bent after the scores are seen, fixed before."""

    margin: float
    """Retention that KEEPS must exceed, in (0, 1]."""
    teacher: str
    """Identity: a hash of weights, or where a served model lies."""
    student: str
    tasks: Mapping[str, str]
    """Name of each task to the hash of its items and of how they are scored."""
    seed: int
    sequential: bool
    """Whether scoring stops as soon as the evidence suffices."""
    confidence: float = CONFIDENCE

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "margin": self.margin,
            "confidence": self.confidence,
            "teacher": self.teacher,
            "student": self.student,
            "tasks": dict(self.tasks),
            "seed": self.seed,
            "sequential": self.sequential,
            "estimand": "mean lift of the student over mean lift of the teacher; lift = (score - chance) / "
            "(1 - chance), means over items within a task, then over tasks",
        }

    @property
    def sha256(self) -> str:
        """Hash that the report carries and anyone can compute again from the promise."""
        return sha256_json(self.as_dict())


def check_margin(margin: float) -> float:
    """Return a margin that can be promised.

    Raises:
        RecipeError: It is not in (0, 1].
    """
    if not (math.isfinite(margin) and 0 < margin <= 1):
        raise RecipeError(
            f"margin must be above 0 and at most 1 (0.9 means nine tenths of the teacher's quality), got {margin:g}"
        )
    return margin


def check_names(names: Sequence[str]) -> None:
    """Refuse two tasks of one name.

    Raises:
        RecipeError: A name occurs twice.
    """
    double = sorted({n for n in names if names.count(n) > 1})
    if double:
        raise RecipeError(
            f"two tasks are called {double[0]}; every task of a run needs its own name"
        )
