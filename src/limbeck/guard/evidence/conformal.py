"""From ranks among honest histories to e-values, and what a number of histories can promise.

The unit is a whole honest history (of an account, or of a group of linked ones), never a request: honest accounts differ
from each other far more than their requests do from one another, and a likelihood ratio per request takes that
difference for guilt. Let T be the largest score that a history ever reaches and T_1..T_n those of n calibration histories.
If the n + 1 are exchangeable,

    e = (n + 1) g(T) / (g(T) + g(T_1) + ... + g(T_n)),    g >= 0 fixed beforehand

has expectation 1 (Vovk, "Conformal e-prediction", 2025; Balinsky and Balinsky, 2024), so P(e >= 1/alpha) <= alpha by
Markov. Watching changes nothing: the largest score so far is at most T and e grows with it, so the e-value at any
time is at most the one at the end, and the first time that it crosses a limit is covered too.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_FAR = 600.0
"""Exponents beyond it leave the range of floats."""
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Honest:
    """The honest histories of one rival, as far as e-values need them."""

    histories: int
    ceiling: float
    """The largest of their scores."""
    others: float
    """The sum of g over all of them, in units of g at the ceiling; at least 1."""
    steepness: float
    """g is exponential in the score with this rate, so that only scores near the ceiling count against."""

    @classmethod
    def of(cls, score_N: Doubles, steepness: float) -> "Honest":
        """Sum up honest scores.

        Raises:
            ValueError: There is none.
        """
        if not len(score_N):
            raise ValueError("a conformal e-value needs honest histories, got none")
        ceiling = float(np.max(score_N))
        others = float(np.exp(np.maximum(steepness * (score_N - ceiling), -_FAR)).sum())
        return cls(len(score_N), ceiling, others, steepness)

    def e_value(self, score: float) -> float:
        """Return the conformal e-value of one score; in [0, n + 1]."""
        own = math.exp(min(_FAR, max(-_FAR, self.steepness * (score - self.ceiling))))
        return (self.histories + 1) / (1.0 + self.others / own)

    def limit(self, alpha: float, histories: int | None = None) -> float:
        """Return the score from which e >= 1/alpha.

        Args:
            alpha: In (0, 1).
            histories: Take the promise of so many histories, instead of those that are there.

        Raises:
            ValueError: So few histories never reach 1/alpha.
        """
        n = self.histories if histories is None else histories
        share = 1.0 / (alpha * (n + 1))
        if share >= 1.0:
            raise ValueError(f"{n} honest histories cannot promise alpha = {alpha:g}")
        return self.ceiling + math.log(self.others * share / (1.0 - share)) / self.steepness


def smallest_alpha(histories: int) -> float:
    """Return the least false accusation rate that so many honest histories can show: e is at most n + 1."""
    return 1.0 / (histories + 1)


def lacking(histories: int, alpha: float) -> int:
    """Return how many honest histories are missing for a promise of alpha; 0 if none."""
    return max(0, math.ceil(1.0 / alpha - 1e-9) - 1 - histories)
