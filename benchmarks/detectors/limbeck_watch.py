"""Limbeck's watch as one of the detectors: the logarithm of its e-value, and what it decided."""

import copy
import math

from detectors.reader import Seen
from limbeck.guard.decision import Action
from limbeck.guard.watch import Watch


class Limbeck:
    """The very watch of the gateway."""

    name = "limbeck"

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.accused: set[str] = set()
        """Accounts that the shipped policy challenged or worse: the operating point."""

    def see(self, seen: Seen) -> float:
        """Return the account's evidence, its cluster's share included.

        That is the score behind the e-value where the watch tells it, since e-values from a calibration of n accounts
        end near n; the logarithm of the e-value otherwise.
        """
        decision = self.watch.observe(seen.one)
        if decision.action >= Action.CHALLENGE:
            self.accused.add(seen.one.account)
        return decision.indicators.get("score", math.log(max(decision.e_value, 1e-300)))

    def branch(self) -> "Limbeck":
        """Return a copy that remembers all that was seen so far and goes its own way from here."""
        return Limbeck(copy.deepcopy(self.watch))
