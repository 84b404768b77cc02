"""The guarantee checked on families that were held out, and the margin that it takes to keep it there.

Exchangeability with honest histories of known families says nothing about a family that nobody has seen. So each honest
family is held out in turn, weights and ranks are made without it, and its accounts are judged. What goes wrong is made
good by a margin that is taken off every score before it is ranked: the guarantee over known families can
only become more conservative. Over unknown families n of them can promise no more than 1/(n + 1), whatever the margin; the
report says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.guard.evidence.calibration import KINDS, Scorer
from limbeck.guard.evidence.conformal import Doubles, Honest
from limbeck.guard.evidence.history import Histories, Mask
from limbeck.guard.evidence.labels import Labels
from limbeck.guard.evidence.ranking import LOWEST, Peaks, rank


@dataclass(frozen=True, slots=True)
class Check:
    """What happened to one family that was held out."""

    family: str
    accounts: int
    accused: int
    """Before any margin."""
    excess: Mapping[str, Doubles]
    """By kind: the margin per way of copying that would have saved all of its accounts; shape [J]."""


def check(
    histories: Histories,
    labels: Labels,
    joined: Mapping[str, Sequence[str]],
    refit: Callable[[int], Mapping[str, Scorer]],
    limits: Callable[[tuple[Doubles, ...]], Doubles],
) -> list[Check]:
    """Hold out each honest family that is not the only one of its rival.

    Args:
        histories: What was recorded.
        labels: Who is who.
        joined: Rival to the classes that stand for it.
        refit: Returns scorers that were learned without a family.
        limits: Returns, per rival, the score from which an account is accused, given honest peaks.
    """
    done: list[Check] = []
    for kinds in joined.values():
        families = labels.families_of(kinds)
        if len(families) < 2:
            continue
        for family in families:
            peaks = Peaks.of(histories, refit(family), labels)
            limit_R = limits(rank(peaks, labels, joined, without=family))
            done.append(_judge(labels, family, peaks, limit_R))
    return done


def margins(checks: Sequence[Check], ways: int) -> dict[str, Doubles]:
    """Return, by kind, the margin per way of copying that families nobody has seen are given; shape [J].

    A way asks for the largest excess of a family that was held out, and as much again as that one exceeded the next: had the
    margin been set by all other families, that is what it would have lacked for the worst. Few families tell little about
    each way alone. So what an account does by itself, in which families differ most, has the largest margin that any
    way asks for; what a cluster does has no less than they ask for on average.
    """
    found: dict[str, Doubles] = {}
    for kind in KINDS:
        excess_CJ = np.sort([one.excess[kind] for one in checks] + 2 * [np.zeros(ways)], axis=0)
        asked_J = 2 * excess_CJ[-1] - excess_CJ[-2]
        least = asked_J.max() if kind == "own" else asked_J.mean()
        found[kind] = np.maximum(asked_J, least)
    return found


def limits(
    peaks: Sequence[Doubles], units: Sequence[int], steepness: float, alpha: float
) -> Doubles:
    """Return the score per rival from which e >= 1/alpha; shape [R].

    Args:
        peaks: Honest peaks per rival.
        units: Honest units that the promise is made with.
        steepness: Of `conformal.Honest`.
        alpha: The promise.
    """
    return np.array(
        [Honest.of(p, steepness).limit(alpha, n) for p, n in zip(peaks, units, strict=True)]
    )


def _judge(labels: Labels, family: int, peaks: Peaks, limit_R: Doubles) -> Check:
    chosen_A = labels.family_A == family
    of = {
        "own": peaks.alone_ARJ[chosen_A],
        "shared": np.maximum(peaks.natural_ARJ, peaks.composed_ARJ)[chosen_A],
    }
    over_AR = np.maximum(of["own"], of["shared"]).max(axis=2) - limit_R
    accused_A = over_AR.min(axis=1) >= 0
    best_A = over_AR.argmin(axis=1)
    rows = np.flatnonzero(accused_A)
    excess = {
        kind: np.max(
            [
                np.zeros(peak_ARJ.shape[2]),
                *(peak_ARJ[a, best_A[a]] - limit_R[best_A[a]] for a in rows),
            ],
            axis=0,
        )
        for kind, peak_ARJ in of.items()
    }
    return Check(labels.families[family], int(chosen_A.sum()), int(accused_A.sum()), excess)


def accused(
    watched: Mapping[str, Doubles],
    margin: Mapping[str, Doubles],
    limit_R: Doubles,
    but: int | None = None,
) -> Mask:
    """Return which accounts would be accused after the margin; shape [A].

    Args:
        watched: By kind, the largest scores of accounts; shape [A, R, J].
        margin: By kind; shape [J].
        limit_R: The score per rival from which an account is accused.
        but: A way of copying that is not looked for.
    """
    highest_AR = np.full(watched["own"].shape[:2], LOWEST)
    for kind, peak_ARJ in watched.items():
        ways = [j for j in range(peak_ARJ.shape[2]) if j != but]
        if ways:
            highest_AR = np.maximum(highest_AR, (peak_ARJ - margin[kind])[:, :, ways].max(axis=2))
    return np.all(highest_AR >= limit_R, axis=1)
