"""Votes asked round by round, with an interval that holds whenever one stops.

A round is one verified cluster together with its share of the items that judges alone have seen. Its corrected value
z = power mean(f) + (Y - power f) has the wanted mean theta whatever the votes are worth, and lies in [-1, 2]. For
every candidate m two bettors stake on z being larger, or smaller, than m; at m = theta their capital is a
nonnegative martingale, so by Ville's inequality it ever reaches 2 / alpha with probability alpha / 2 at the most. The
interval is what is left of the candidates: hedged capital with predictable plug-in bets (Waudby-Smith and Ramdas,
JRSS B 86, 2024, section 4.2), for rounds that carry weights. `power` for a round is set from the rounds before it,
as in prediction-powered e-values (Csillag et al. 2025, arXiv:2502.04294), so the martingale stays one.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

LOWEST, HIGHEST = -1.0, 2.0
"""Range of a round's corrected value: outcomes, votes and power lie in [0, 1]."""
_CANDIDATES = 401
_CAUTION = 0.5
"""Share of the capital that a bet may lose at worst."""
_FIRST_POWER = 0.5
_FEWEST_KNOWN = 10


class Betting:
    """The state of the bets on one mean in [0, 1]; feed it round after round, read the interval at any time."""

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), got {alpha}")
        self._alpha = alpha
        self._candidate_M = np.linspace(0, 1, _CANDIDATES)
        self._log_more_M = np.zeros(_CANDIDATES)
        self._log_less_M = np.zeros(_CANDIDATES)
        self._alive_M = np.ones(_CANDIDATES, dtype=bool)
        self._rounds = 0
        self._sum = 0.5
        self._squares = 0.25
        self._weights = 1.0

    def bet(self, value: float, weight: float = 1.0) -> None:
        """Settle the bets on one round.

        Args:
            value: In [-1, 2].
            weight: In (0, 1]: the round's size over the size of the largest.

        Raises:
            ValueError: Value or weight outside its range.
        """
        if not LOWEST <= value <= HIGHEST or not 0 < weight <= 1:
            raise ValueError(
                f"a round needs a value in [-1, 2] and a weight in (0, 1], got {value}, {weight}"
            )
        m_M = self._candidate_M
        stake = self._stake()
        gain_M = weight * (value - m_M)
        self._log_more_M += np.log1p(np.minimum(stake, _CAUTION / (m_M - LOWEST)) * gain_M)
        self._log_less_M += np.log1p(-np.minimum(stake, _CAUTION / (HIGHEST - m_M)) * gain_M)
        poor_M = np.maximum(self._log_more_M, self._log_less_M) < math.log(2 / self._alpha)
        if (self._alive_M & poor_M).any():  # else the rounds have no common mean: claim nothing new
            self._alive_M &= poor_M
        self._learn(value, weight)

    def interval(self) -> tuple[float, float]:
        """Return the smallest and the largest candidate left, one grid step wider on both sides."""
        left_M = np.flatnonzero(self._alive_M)
        step = 1 / (_CANDIDATES - 1)
        low, high = self._candidate_M[left_M[0]] - step, self._candidate_M[left_M[-1]] + step
        return max(0.0, float(low)), min(1.0, float(high))

    def _stake(self) -> float:
        """Return the bet that would have been good so far: large where the rounds vary little."""
        variance = self._squares / (self._rounds + 1)
        t = self._rounds + 1
        return math.sqrt(2 * math.log(2 / self._alpha) / (variance * t * math.log(t + 1)))

    def _learn(self, value: float, weight: float) -> None:
        self._rounds += 1
        self._sum += weight * value
        self._weights += weight
        self._squares += (weight * (value - self._sum / self._weights)) ** 2


def next_power(known: Sequence[tuple[float, float]], ratio: float) -> float:
    """Return the best power for the next round from the verified items of the rounds before.

    Args:
        known: Outcome and vote of each verified item so far.
        ratio: Items that judges alone see for each verified one; 0 leaves the votes unused.
    """
    if ratio <= 0:
        return 0.0
    if len(known) < _FEWEST_KNOWN:
        return _FIRST_POWER
    (_, cov), (_, var_f) = np.cov(np.array(known).T)
    return float(np.clip(cov / (var_f * (1 + 1 / ratio)), 0, 1)) if var_f > 0 else _FIRST_POWER
