"""Evidence that may be looked at after every item: betting against a hypothesis on a ratio of means.

A bettor who stakes a fixed share f of what the worst outcome could cost on each round has the capital
prod_j (1 + f d_j / b_j), where d_j >= -b_j. If the mean of every d_j is at most 0, that capital is a
supermartingale, and so is its average over many shares f: by Ville's inequality it reaches 1/a with probability at
most a, however long one watches and whenever one stops. Sources: Waudby-Smith and Ramdas, JRSS B 86 (2024), section 4;
the average over shares is the universal portfolio of Orabona and Jun (IEEE Trans. Inf. Theory 70, 2024). The average
does not depend on the order of the rounds, so nothing is won by reordering them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from limbeck.stats.paired import Doubles, Ints, Paired, lift

_SHARES = np.concatenate([2.0 ** -np.arange(8, 1, -1), np.linspace(0.3, 0.99, 17)])
_LOWEST, _HIGHEST = -1.0, 3.0
"""Ratios that are looked at; a confidence set that reaches an end counts as unbounded."""
_STEPS = 401
_HALVINGS = 20


@dataclass(frozen=True, slots=True)
class Rounds:
    """Scores above chance, one round at a time, every task with an equal part in each round."""

    student_J: Doubles
    teacher_J: Doubles
    weight_J: Doubles
    """Sum of item weights: what a perfect model would score in that round."""
    guess_J: Doubles
    """Minus what a model that is always wrong would score in that round."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which item of which task is played in which round; fixed before anything is scored."""

    round_KI: tuple[Ints, ...]
    """One array a task: the round of each item, from 0."""
    count: int
    """Rounds: the clusters of the task that has fewest."""


def schedule(cluster_KI: Sequence[Ints], *, seed: int) -> Schedule:
    """Deal the clusters of every task over as many rounds as the task with the fewest clusters has.

    Args:
        cluster_KI: One array a task: the cluster of each item, numbered from 0 without gaps.
        seed: Shuffles the clusters; every prefix of the rounds is then a sample of all of them.
    """
    clusters = [int(cluster_I.max()) + 1 for cluster_I in cluster_KI]
    count = min(clusters)
    rng = np.random.default_rng(seed)
    dealt = [
        (rng.permutation(n) * count // n)[cluster_I].astype(np.int64)
        for n, cluster_I in zip(clusters, cluster_KI, strict=True)
    ]
    return Schedule(tuple(dealt), count)


def play(
    dealt: Schedule,
    tasks: Sequence[Paired],
    *,
    upto: int | None = None,
    chosen: Sequence[Ints] | None = None,
) -> Rounds:
    """Return the rounds that were played.

    An item of a task with n items, over J rounds and K tasks, weighs J / (n K): the mean over rounds is then the mean
    over tasks of their mean lifts, and every round has the same expectation.

    Args:
        dealt: The schedule of all items.
        tasks: Scores, of all items or of the `chosen` ones.
        upto: Rounds that were played; None means all.
        chosen: For each task the places, in the schedule, of the items that `tasks` holds; None means all.
    """
    count = dealt.count if upto is None else upto
    sums = np.zeros((4, count))
    for k, task in enumerate(tasks):
        round_I = dealt.round_KI[k] if chosen is None else dealt.round_KI[k][chosen[k]]
        weight = dealt.count / (len(dealt.round_KI[k]) * len(tasks))
        parts = (
            lift(task.student_I, task.chance_I),
            lift(task.teacher_I, task.chance_I),
            np.ones(task.items),
            task.chance_I / (1 - task.chance_I),
        )
        sums += weight * np.stack([np.bincount(round_I, p, minlength=count) for p in parts])
    return Rounds(*sums)


def evidence(played: Rounds, ratio: float) -> tuple[Doubles, Doubles]:
    """Return after each round log e-values against "student <= ratio x teacher" and against ">=", both [J].

    Args:
        played: Scores above chance.
        ratio: The hypothesis on E[student] / E[teacher].
    """
    up_LJ, down_LJ = _log_growth(played, np.array([ratio]))
    return _path(up_LJ[:, 0]), _path(down_LJ[:, 0])


def ratio_interval(played: Rounds, confidence: float) -> tuple[float, float] | None:
    """Return the ratios that no bettor has refuted, low and high; None where they have no end.

    It holds at every round at once, so it may be read after a stop that depended on the data.

    Args:
        played: Scores above chance.
        confidence: Of the two-sided interval; each side has half of what is left.
    """
    limit = np.log(2 / (1 - confidence))
    ratio_R = np.linspace(_LOWEST, _HIGHEST, _STEPS)
    kept_R = _kept(played, ratio_R, limit)
    if not kept_R.any() or kept_R[0] or kept_R[-1]:
        return None
    first, last = int(np.argmax(kept_R)), _STEPS - 1 - int(np.argmax(kept_R[::-1]))
    low = _edge(played, limit, inside=ratio_R[first], outside=ratio_R[first - 1])
    high = _edge(played, limit, inside=ratio_R[last], outside=ratio_R[last + 1])
    return low, high


def _kept(played: Rounds, ratio_R: Doubles, limit: float) -> npt.NDArray[np.bool_]:
    up_LRJ, down_LRJ = _log_growth(played, ratio_R)
    return (_total(up_LRJ) < limit) & (_total(down_LRJ) < limit)


def _edge(played: Rounds, limit: float, *, inside: float, outside: float) -> float:
    """Halve the way to the first refuted ratio; the end outside is returned, which errs to the safe side."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if _kept(played, np.array([middle]), limit)[0]:
            inside = middle
        else:
            outside = middle
    return float(outside)


def _log_growth(played: Rounds, ratio_R: Doubles) -> tuple[Doubles, Doubles]:
    """Return the log growth of each bet on each ratio in each round, [L, R, J], upwards and downwards."""
    ratio_R1 = ratio_R[:, None]
    plus_R1, minus_R1 = np.maximum(ratio_R1, 0), np.maximum(-ratio_R1, 0)
    gain_RJ = played.student_J - ratio_R1 * played.teacher_J
    weight_J, guess_J = played.weight_J, played.guess_J
    worst_RJ = guess_J + plus_R1 * weight_J + minus_R1 * guess_J
    best_RJ = weight_J + plus_R1 * guess_J + minus_R1 * weight_J
    bet_L11 = _SHARES[:, None, None]
    # Where a round cannot be lost, one gain refutes for good.
    sure_RJ = np.where(gain_RJ > 0, np.inf, 0.0)
    rise_RJ = np.divide(gain_RJ, worst_RJ, out=sure_RJ, where=worst_RJ > 0)
    return np.log1p(bet_L11 * rise_RJ), np.log1p(-bet_L11 * gain_RJ / best_RJ)


def _total(growth_LRJ: Doubles) -> Doubles:
    """Return the log of the mean capital over bets after the last round, [R]."""
    return np.logaddexp.reduce(growth_LRJ.sum(-1), axis=0) - np.log(len(_SHARES))


def _path(growth_LJ: Doubles) -> Doubles:
    """Return the log of the mean capital over bets after each round, [J]."""
    return np.logaddexp.reduce(growth_LJ.cumsum(-1), axis=0) - np.log(len(_SHARES))
