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

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def weight(score_N: Doubles, steepness: float) -> Doubles:
    """Return g: exponential in the score, so that only scores near the honest maximum count against."""
    return np.exp(np.clip(steepness * score_N, -700.0, 700.0))


def e_value(score: float, honest_N: Doubles, steepness: float) -> float:
    """Return the conformal e-value of one score; never above n + 1.

    Raises:
        ValueError: There is no honest score.
    """
    if not len(honest_N):
        raise ValueError("a conformal e-value needs honest histories, got none")
    ceiling = float(np.max(honest_N))
    ratio_N = weight(honest_N - ceiling, steepness)
    own = float(weight(np.array([score - ceiling]), steepness)[0])
    return (len(honest_N) + 1) * own / (own + float(ratio_N.sum()))


def smallest_alpha(histories: int) -> float:
    """Return the least false accusation rate that so many honest histories can show: e is at most n + 1."""
    return 1.0 / (histories + 1)


def lacking(histories: int, alpha: float) -> int:
    """Return how many honest histories are missing for a promise of alpha; 0 if none."""
    return max(0, math.ceil(1.0 / alpha - 1e-9) - 1 - histories)


def threshold(
    honest_N: Doubles, steepness: float, alpha: float, histories: int | None = None
) -> float:
    """Return the score from which e >= 1/alpha.

    Args:
        honest_N: Honest scores.
        steepness: Of `weight`.
        alpha: In (0, 1).
        histories: Take the promise of so many histories, instead of those that are there.

    Raises:
        ValueError: So few histories never reach 1/alpha.
    """
    share = 1.0 / (alpha * ((len(honest_N) if histories is None else histories) + 1))
    if share >= 1.0:
        raise ValueError(f"{len(honest_N)} honest histories cannot promise alpha = {alpha:g}")
    ceiling = float(np.max(honest_N))
    others = float(weight(honest_N - ceiling, steepness).sum())
    return ceiling + math.log(others * share / (1.0 - share)) / steepness
