"""Two models scored on the same items, and what chance alone would score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit
from scipy.stats import binomtest

from limbeck.stats.estimate import Estimate, check_confidence

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Paired:
    """One task's scores; index i is one item in every array."""

    teacher_I: Doubles
    """In [0, 1]."""
    student_I: Doubles
    """In [0, 1]."""
    chance_I: Doubles
    """Expected score of guessing, in [0, 1)."""
    cluster_I: Ints
    """Number of the cluster of each item, from 0 without gaps; an item alone is a cluster."""

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.teacher_I)

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return int(self.cluster_I.max()) + 1

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        both = np.concatenate([self.teacher_I, self.student_I])
        return bool(np.isin(both, (0.0, 1.0)).all())


def pair(
    teacher: Sequence[float],
    student: Sequence[float],
    chance: Sequence[float] | float,
    clusters: Sequence[str] | None = None,
) -> Paired:
    """Check scores of both models on the same items and put them side by side.

    Args:
        teacher: One score an item, in [0, 1].
        student: As many.
        chance: Expected score of guessing, of each item or of all, in [0, 1).
        clusters: Items of one label share their luck; None makes every item its own cluster.

    Raises:
        ValueError: No items, unequal lengths, or a score or chance level out of range.
    """
    teacher_I, student_I = (np.asarray(x, dtype=np.float64) for x in (teacher, student))
    n = len(teacher_I)
    chance_I = np.broadcast_to(np.asarray(chance, dtype=np.float64), (n,)).copy()
    labels = list(map(str, range(n))) if clusters is None else list(clusters)
    if n == 0 or len(student_I) != n or len(labels) != n:
        raise ValueError(
            f"paired scores need equally many items, at least one, got {n}, {len(student_I)} and {len(labels)}"
        )
    for name, x in (("teacher", teacher_I), ("student", student_I)):
        if not ((x >= 0) & (x <= 1)).all():
            raise ValueError(f"{name}'s scores must be in [0, 1], got {x.min()} to {x.max()}")
    if not ((chance_I >= 0) & (chance_I < 1)).all():
        raise ValueError(f"chance must be in [0, 1), got {chance_I.min()} to {chance_I.max()}")
    _, cluster_I = np.unique(labels, return_inverse=True)
    return Paired(teacher_I, student_I, chance_I, cluster_I.astype(np.int64))


def clustered_mean(value_I: Doubles, cluster_I: Ints) -> tuple[float, float]:
    """Return the mean over items and its standard error, clusters being the sampling unit.

    se = sqrt( G / (G - 1) * sum_g (y_g - n_g * mean)^2 ) / n over G clusters with totals y_g and sizes n_g: the
    cluster-robust error of an intercept (Liang and Zeger, Biometrika 73, 1986). The error is infinite with one cluster.
    """
    size_G = np.bincount(cluster_I)
    total_G = np.bincount(cluster_I, weights=value_I)
    mean = float(value_I.mean())
    clusters = len(size_G)
    if clusters < 2:
        return mean, float("inf")
    squares = float(np.square(total_G - size_G * mean).sum())
    return mean, float(np.sqrt(clusters / (clusters - 1) * squares)) / len(value_I)


def difference(task: Paired, confidence: float = 0.95) -> Estimate | None:
    """Return the student's mean score minus the teacher's with a t interval over clusters; None for one cluster."""
    check_confidence(confidence)
    mean, error = clustered_mean(task.student_I - task.teacher_I, task.cluster_I)
    if task.clusters < 2:
        return None
    half = float(stdtrit(task.clusters - 1, (1 + confidence) / 2)) * error
    method = "paired t" if task.clusters == task.items else "paired t, clustered"
    low, high = max(-1.0, mean - half), min(1.0, mean + half)
    return Estimate(mean, low, high, task.clusters, confidence, method)


def lift(score_I: Doubles, chance_I: Doubles) -> Doubles:
    """Return (score - chance) / (1 - chance): 0 for guessing, 1 for perfection, below 0 for worse than guessing."""
    return (score_I - chance_I) / (1 - chance_I)


@dataclass(frozen=True, slots=True)
class Flips:
    """On how many items two models differ in what they get right."""

    lost: int
    """Right for the teacher alone."""
    gained: int
    """Right for the student alone."""
    p_value: float | None
    """McNemar's exact test, two-sided; None where items are clustered, for then they are no independent draws."""


def mcnemar(lost: int, gained: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (Psychometrika 12, 1947): a sign test on what differs.

    Raises:
        ValueError: A count below 0.
    """
    if min(lost, gained) < 0:
        raise ValueError(f"counts must be at least 0, got {lost} and {gained}")
    if lost + gained == 0:
        return 1.0
    return float(binomtest(lost, lost + gained, 0.5).pvalue)


def flips(task: Paired) -> Flips | None:
    """Count the items on which exactly one of the two is right; None unless all scores are 0 or 1."""
    if not task.binary:
        return None
    lost = int((task.teacher_I > task.student_I).sum())
    gained = int((task.student_I > task.teacher_I).sum())
    alone = task.clusters == task.items
    return Flips(lost, gained, mcnemar(lost, gained) if alone else None)
