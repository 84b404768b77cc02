"""Which share of the teacher's above-chance quality a student keeps, and whether that is above a margin.

With lifts x = (student - chance) / (1 - chance) and y likewise for the teacher, retention is
R = mean x / mean y, means being taken over items within a task and then over tasks, each alike. Its interval is
Fieller's (JRSS B 16, 1954): all R for which mean x - R mean y lies within t standard errors of 0. It is exact for
normal means whatever the teacher's noise, and it has no end where the teacher cannot be told from chance.

Means and covariances hold, beside the real items of each task, the four corners (0, 0), (0, 1), (1, 0) and (1, 1)
of the two scores with weight 1/2 each, as Agresti and Min (Statistics in Medicine 24, 2005) do for paired
proportions: without them ten right answers of ten would have no error at all. Where teacher and student differ on
fewer than 10 clusters, or a task has fewer, no normal law can be trusted, and the interval comes from betting
(`anytime`), which holds at every size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from limbeck.stats import anytime
from limbeck.stats.estimate import check_confidence
from limbeck.stats.paired import Paired, lift

Method = Literal["Fieller", "betting"]
FEW = 10
"""Clusters of a task, and clusters on which the two models differ, below which the interval comes from betting."""
_CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
_CORNER_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Moments:
    """Means over tasks of lifts, with the covariance of these means."""

    student: float
    teacher: float
    variance_student: float
    variance_teacher: float
    covariance: float
    freedom: float
    """Degrees of freedom of the standard error of student - R teacher (Welch and Satterthwaite)."""

    def error(self, ratio: float) -> float:
        """Return the standard error of student - ratio x teacher."""
        square = (
            self.variance_student
            - 2 * ratio * self.covariance
            + ratio * ratio * self.variance_teacher
        )
        return math.sqrt(max(0.0, square))


@dataclass(frozen=True, slots=True)
class Retention:
    """The share of above-chance quality that is kept, with its interval, or why there is none."""

    point: float | None
    low: float | None
    high: float | None
    reason: str | None
    """One clause on why nothing is claimed; None beside an interval."""
    teacher: float
    """Mean lift of the teacher: 0 at chance, 1 for perfection."""
    student: float
    """Mean lift of the student."""
    items: int
    clusters: int
    differing: int
    """Clusters on which the two scored differently."""
    confidence: float
    method: Method

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.reason is None


def retention(
    tasks: Sequence[Paired],
    confidence: float = 0.95,
    *,
    played: anytime.Rounds | None = None,
    seed: int = 0,
) -> Retention:
    """Return the retention over one or more tasks, each task counting alike.

    Args:
        tasks: At least one.
        confidence: Of the two-sided interval, in (0, 1).
        played: The rounds as they were played, where the number of items depended on their scores: only betting
            holds then.
        seed: Deals items to rounds where betting decides after all.

    Raises:
        ValueError: There is no task, or a confidence outside (0, 1).
    """
    check_confidence(confidence)
    if not tasks:
        raise ValueError("retention needs at least one task")
    differing = sum(map(_differing, tasks))
    few = _is_few(tasks, played)
    if few:
        found = anytime.ratio_interval(played or _dealt(tasks, seed), confidence)
    else:
        found = _fieller(tasks, confidence)
    student, teacher = (
        float(np.mean([lift(x, t.chance_I).mean() for t, x in rows]))
        for rows in ([(t, t.student_I) for t in tasks], [(t, t.teacher_I) for t in tasks])
    )
    point = student / teacher if teacher > 0 else None
    reason = None
    if point is None or found is None:
        reason = (
            f"the teacher's quality, {100 * teacher:.1f}% of the way from chance to perfection, "
            "cannot be told from chance on these items"
        )
    low, high = found if found is not None and reason is None else (None, None)
    return Retention(
        point=point if reason is None else None,
        low=low,
        high=high,
        reason=reason,
        teacher=teacher,
        student=student,
        items=sum(task.items for task in tasks),
        clusters=sum(task.clusters for task in tasks),
        differing=differing,
        confidence=confidence,
        method="betting" if few else "Fieller",
    )


def moments(tasks: Sequence[Paired], *, corners: bool = True, ratio: float = 1.0) -> Moments:
    """Return mean lifts over tasks and their covariance, clusters being the sampling unit.

    Args:
        tasks: At least one.
        corners: Whether the four corners take part.
        ratio: For which student - ratio x teacher the degrees of freedom are.
    """
    parts = [_task_moments(task, _CORNER_WEIGHT if corners else 0.0) for task in tasks]
    k = len(parts)
    mean = np.mean([p[0] for p in parts], axis=0)
    covariance = np.sum([p[1] for p in parts], axis=0) / k**2
    contrast = np.array([1.0, -ratio])
    each = [float(contrast @ p[1] @ contrast) / k**2 for p in parts]
    spread = sum(e * e / max(1, task.clusters - 1) for e, task in zip(each, tasks, strict=True))
    freedom = sum(each) ** 2 / spread if spread > 0 else float(sum(t.clusters - 1 for t in tasks))
    return Moments(
        student=float(mean[0]),
        teacher=float(mean[1]),
        variance_student=float(covariance[0, 0]),
        variance_teacher=float(covariance[1, 1]),
        covariance=float(covariance[0, 1]),
        freedom=max(1.0, freedom),
    )


def _task_moments(task: Paired, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean lifts [W] and the covariance of these means [W, W]."""
    lifts_WI = np.stack([lift(task.student_I, task.chance_I), lift(task.teacher_I, task.chance_I)])
    chance = float(task.chance_I.mean())
    corner_WC = (np.array([c[::-1] for c in _CORNERS]).T - chance) / (1 - chance)
    total = task.items + len(_CORNERS) * weight
    units = task.clusters + len(_CORNERS) * weight
    mean_W = (lifts_WI.sum(1) + weight * corner_WC.sum(1)) / total
    size_G = np.bincount(task.cluster_I)
    sums_WG = np.stack([np.bincount(task.cluster_I, weights=row) for row in lifts_WI])
    off_WG = sums_WG - mean_W[:, None] * size_G
    off_WC = corner_WC - mean_W[:, None]
    scatter = off_WG @ off_WG.T + weight * (off_WC @ off_WC.T)
    return mean_W, units / max(1.0, units - 1) * scatter / total**2


def _fieller(tasks: Sequence[Paired], confidence: float) -> tuple[float, float] | None:
    found = moments(tasks)
    if found.teacher > 0:  # degrees of freedom belong to the ratio at hand
        found = moments(tasks, ratio=found.student / found.teacher)
    t = float(stdtrit(found.freedom, (1 + confidence) / 2))
    return fieller(found, t)


def fieller(found: Moments, t: float) -> tuple[float, float] | None:
    """Return all R with |student - R teacher| <= t standard errors; None where they have no end or the teacher is below 0.

    Args:
        found: Means and covariances.
        t: Quantile of Student's distribution.
    """
    a = found.teacher**2 - t * t * found.variance_teacher
    b = found.student * found.teacher - t * t * found.covariance
    c = found.student**2 - t * t * found.variance_student
    if found.teacher <= 0 or not a > 0:
        return None
    root = math.sqrt(max(0.0, b * b - a * c))
    return (b - root) / a, (b + root) / a


def _dealt(tasks: Sequence[Paired], seed: int) -> anytime.Rounds:
    return anytime.play(anytime.schedule([t.cluster_I for t in tasks], seed=seed), tasks)


def _is_few(tasks: Sequence[Paired], played: anytime.Rounds | None) -> bool:
    """Tell whether no normal law can be trusted: too few differences or clusters, or a stop that hung on scores."""
    differing = sum(map(_differing, tasks))
    return played is not None or differing < FEW or min(t.clusters for t in tasks) < FEW


def _differing(task: Paired) -> int:
    apart_G = np.bincount(task.cluster_I, weights=np.abs(task.student_I - task.teacher_I))
    return int((apart_G > 0).sum())


@dataclass(frozen=True, slots=True)
class MarginTest:
    """One-sided p-values around a margin."""

    p_keeps: float
    """Of "retention is at or below the margin": small speaks for KEEPS."""
    p_loses: float
    """Of "retention is at or above the margin": small speaks for LOSES."""


def margin_test(
    tasks: Sequence[Paired],
    margin: float,
    *,
    played: anytime.Rounds | None = None,
    seed: int = 0,
) -> MarginTest:
    """Test retention against a margin, by the method that `retention` uses for its interval.

    Args:
        tasks: At least one.
        margin: In (0, 1].
        played: As for `retention`.
        seed: As for `retention`.
    """
    if _is_few(tasks, played):
        up_J, down_J = anytime.evidence(played or _dealt(tasks, seed), margin)
        return MarginTest(min(1.0, math.exp(-up_J[-1])), min(1.0, math.exp(-down_J[-1])))
    found = moments(tasks, ratio=margin)
    error = found.error(margin)
    if error == 0:
        return MarginTest(1.0, 1.0)
    t = (found.student - margin * found.teacher) / error
    below = float(stdtr(found.freedom, t))
    return MarginTest(1 - below, below)
