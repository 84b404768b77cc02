"""The honest units that a rival's evidence is ranked among, and how high each gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.guard.evidence.calibration import Scorer
from limbeck.guard.evidence.conformal import Doubles
from limbeck.guard.evidence.history import Histories, Ints, Mask
from limbeck.guard.evidence.labels import Labels

LOWEST = -100.0
"""The score of a history that ended before its first checkpoint."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """The largest scores of every account: alone, through the groups of the log, and through composed clusters."""

    alone_ARJ: Doubles
    natural_ARJ: Doubles
    composed_ARJ: Doubles

    @classmethod
    def of(cls, histories: Histories, scorers: Mapping[str, Scorer], labels: Labels) -> "Peaks":
        """Score recorded histories."""
        alone_ARJ, natural_ARJ = histories.peaks(scorers, labels.natural_C)
        _, composed_ARJ = histories.peaks(scorers, ~labels.natural_C)
        return cls(*(np.maximum(x, LOWEST) for x in (alone_ARJ, natural_ARJ, composed_ARJ)))

    @property
    def watched_ARJ(self) -> Doubles:
        """What the watch would see in the log as it is."""
        return np.maximum(self.alone_ARJ, self.natural_ARJ)


def unit_peaks(peaks: Peaks, labels: Labels, chosen_A: Mask) -> Doubles:
    """Return the largest score per unit and rival of some accounts; shape [N, R].

    Units are the groups of the log, and each composed cluster once more for what it would have lifted.
    """
    groups_NR = _by(labels.unit_A[chosen_A], peaks.watched_ARJ[chosen_A].max(axis=2))
    inside_A = chosen_A & (labels.composed_A >= 0)
    clusters_NR = _by(labels.composed_A[inside_A], peaks.composed_ARJ[inside_A].max(axis=2))
    return np.concatenate([groups_NR, clusters_NR])


def _by(unit_N: Ints, score_NR: Doubles) -> Doubles:
    different, inverse_N = np.unique(unit_N, return_inverse=True)
    highest_NR = np.full((len(different), score_NR.shape[1]), LOWEST)
    np.maximum.at(highest_NR, inverse_N, score_NR)
    return highest_NR


def rank(
    peaks: Peaks, labels: Labels, joined: Mapping[str, Sequence[str]], *, without: int | None = None
) -> tuple[Doubles, ...]:
    """Return, per rival, the peaks of the units that calibrate it, ascending.

    Args:
        peaks: Of all accounts.
        labels: Who is who.
        joined: Rival to the honest classes that stand for it.
        without: A family to leave out.
    """
    ranked: list[Doubles] = []
    for r, kinds in enumerate(joined.values()):
        families = [f for f in labels.families_of(kinds) if f != without]
        chosen_A = np.isin(labels.family_A, families) & ~labels.trained_A
        ranked.append(np.sort(unit_peaks(peaks, labels, chosen_A)[:, r]))
    return tuple(ranked)
