"""Whole histories, recorded once: the features at every checkpoint, and the largest score that each history reaches."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from limbeck.guard.evidence.calibration import LEANS, Scorer
from limbeck.guard.evidence.conformal import Doubles
from limbeck.guard.features import NAMES

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """Feature vectors at checkpoints, in the order in which they came; `owner_N` is an account or a cluster."""

    owner_N: Ints
    place_N: Ints
    feature_NF: Doubles

    def of(self, chosen: Mask) -> "Rows":
        """Return the rows of some owners, given by a mask over owners."""
        keep_N = chosen[self.owner_N]
        return Rows(self.owner_N[keep_N], self.place_N[keep_N], self.feature_NF[keep_N])


@dataclass(frozen=True, slots=True)
class Histories:
    """What happened in a log, as far as evidence sees it.

    A touch is the last time between two of its own checkpoints that an account was weighed with a cluster: the account,
    the row of its own last checkpoint, the cluster, and the cluster's last row by then.
    """

    accounts: tuple[str, ...]
    clusters: tuple[str, ...]
    own: Rows
    shared: Rows
    touch_N4: Ints

    def peaks(self, scorers: Mapping[str, Scorer], cluster_C: Mask) -> tuple[Doubles, Doubles]:
        """Return the largest scores that each account reaches alone, and through the clusters that a mask chooses.

        Both have the shape [A, R, J], are less the margins, and -inf where there is no score. A cluster lifts an account only against rivals that the
        account's own last score leans away from, just as `Watch` has it.
        """
        own_NRJ = scorers["own"].rows(self.own.place_N, self.own.feature_NF)
        shape = (len(self.accounts), *own_NRJ.shape[1:])
        alone_ARJ, through_ARJ = np.full(shape, -np.inf), np.full(shape, -np.inf)
        np.maximum.at(alone_ARJ, self.own.owner_N, own_NRJ)
        touch_N4 = self.touch_N4[cluster_C[self.touch_N4[:, 2]]]
        if len(touch_N4):
            account_N, own_N, _, row_N = touch_N4.T
            risen_NRJ = _running_max(
                self.shared.owner_N,
                scorers["shared"].rows(self.shared.place_N, self.shared.feature_NF),
            )
            leans_NR1 = own_NRJ[own_N].max(axis=2, keepdims=True) > LEANS
            np.maximum.at(through_ARJ, account_N, np.where(leans_NR1, risen_NRJ[row_N], -np.inf))
        return alone_ARJ - scorers["own"].margin_J, through_ARJ - scorers["shared"].margin_J


class Recorder:
    """Takes down what a watch weighs; see `watch.Recorder`."""

    def __init__(self) -> None:
        """Start with an empty sheet."""
        self._accounts: dict[str, int] = {}
        self._clusters: dict[str, int] = {}
        self._own: list[tuple[int, int, Doubles]] = []
        self._shared: list[tuple[int, int, Doubles]] = []
        self._last_own: dict[int, int] = {}
        self._last_shared: dict[int, int] = {}
        self._touches: dict[tuple[int, int, int], int] = {}

    def own(self, account: str, place: int, feature_F: Doubles) -> None:
        """Take an account's features."""
        owner = self._accounts.setdefault(account, len(self._accounts))
        self._last_own[owner] = len(self._own)
        self._own.append((owner, place, feature_F))

    def shared(self, cluster: str, place: int, feature_F: Doubles) -> None:
        """Take a cluster's features."""
        owner = self._clusters.setdefault(cluster, len(self._clusters))
        self._last_shared[owner] = len(self._shared)
        self._shared.append((owner, place, feature_F))

    def touch(self, account: str, cluster: str) -> None:
        """Hear that an account was weighed together with a cluster."""
        owner, pool = self._accounts.get(account), self._clusters.get(cluster)
        if owner is not None and pool is not None:
            self._touches[owner, self._last_own[owner], pool] = self._last_shared[pool]

    def histories(self, accounts: tuple[str, ...]) -> Histories:
        """Return what was taken down.

        Args:
            accounts: All of the log, also those that never came to a checkpoint.
        """
        place = {name: n for n, name in enumerate(accounts)}
        number = np.array([place[name] for name in self._accounts], np.int64)
        own, shared = _rows(self._own), _rows(self._shared)
        touches = [(*key, row) for key, row in self._touches.items()]
        touch_N4 = np.array(touches, np.int64).reshape(len(touches), 4)
        touch_N4[:, 0] = number[touch_N4[:, 0]]
        return Histories(
            accounts,
            tuple(self._clusters),
            replace(own, owner_N=number[own.owner_N]),
            shared,
            touch_N4,
        )


def _rows(taken: list[tuple[int, int, Doubles]]) -> Rows:
    features = np.array([f for _, _, f in taken]).reshape(len(taken), len(NAMES))
    return Rows(
        np.array([o for o, _, _ in taken], np.int64),
        np.array([p for _, p, _ in taken], np.int64),
        features,
    )


def _running_max(owner_N: Ints, score_NRJ: Doubles) -> Doubles:
    """The largest score so far of each row's owner."""
    risen_NRJ = score_NRJ.copy()
    order_N = np.argsort(owner_N, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(owner_N[order_N]) != 0]) if len(owner_N) else []
    for begin, end in zip(starts, [*starts[1:], len(order_N)], strict=True):
        rows = order_N[begin:end]
        risen_NRJ[rows] = np.maximum.accumulate(score_NRJ[rows], axis=0)
    return risen_NRJ
