"""Limbeck's watch as two of the detectors: the score behind its e-value, and what its policy decides."""

import copy

import numpy as np

from detectors.reader import Seen
from limbeck.guard.decision import Action
from limbeck.guard.evidence.calibration import Calibration
from limbeck.guard.watch import Watch

LIMBECK = "limbeck"
SHIPPED = "limbeck, shipped policy"
ACCUSED = 0.5
"""Threshold of what the policy decides, which is 0 or 1."""


class Limbeck:
    """The very watch of the gateway.

    An e-value from n calibration histories ends at n + 1, so honest and guilty would tie there. The score is the same
    quantity without that ceiling: for each rival log(g(T) / sum of g(T_i)), and the least of them. It orders accounts as
    the e-value does wherever that is not at its end, and makes curves possible beyond the calibration's size.
    """

    name = LIMBECK

    def __init__(self, watch: Watch, calibration: Calibration) -> None:
        self.watch = watch
        self.last = Action.ALLOW
        """The decision on the request that was seen last."""
        self._calibration = calibration
        self._steepness = calibration.steepness
        self._log_sum_R = np.array(
            [np.logaddexp.reduce(self._steepness * honest_N) for honest_N in calibration.peaks]
        )

    def see(self, seen: Seen) -> float:
        """Return the account's evidence in nats, its cluster's share included."""
        self.last = self.watch.observe(seen.one).action
        account = self.watch.accounts.peek(seen.one.account)
        if account is None:
            return -np.inf
        return float((self._steepness * account.peak_R - self._log_sum_R).min())

    def branch(self) -> "Limbeck":
        """Return a copy that remembers all that was seen so far and goes its own way from here."""
        kept = {id(self._calibration): self._calibration}
        return Limbeck(copy.deepcopy(self.watch, kept), self._calibration)


class Shipped:
    """What the policy decides: 1 from a challenge on, which accuses, else 0. Stands after its `Limbeck`."""

    name = SHIPPED

    def __init__(self, limbeck: Limbeck) -> None:
        self._limbeck = limbeck

    def see(self, _seen: Seen) -> float:
        """Return the decision on the request that `Limbeck` has just seen."""
        return float(self._limbeck.last >= Action.CHALLENGE)
