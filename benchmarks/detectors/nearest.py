"""PRADA and SEAT: detectors of the classifier era, which look at distances between an account's own queries.

PRADA (Juuti et al., EuroS&P 2019) watches the distances from each new query to the nearest earlier one of the account and
asks, with Shapiro and Wilk's test, whether they are normally distributed; attacks on classifiers are not. Here all
queries are one class, since a language model's answer has none, and distances are between cheap embeddings.

SEAT (Zhang et al., AAAI 2021) counts pairs of similar queries of an account; the encoder is the cheap embedding too.
"""

import numpy as np
from scipy.stats import shapiro

from detectors.reader import DIMENSIONS, Floats, Seen

_MOST = 1500
"""Queries of an account that are remembered; later ones replace the oldest."""
_EVERY = 20
_LEAST = 20
"""Queries between two tests, and before the first."""
_SIMILAR = 0.9


class _Queries:
    """The queries of one account."""

    __slots__ = ("count", "rows_ND")

    def __init__(self) -> None:
        self.rows_ND: Floats = np.zeros((32, DIMENSIONS), np.float32)
        self.count = 0

    def add(self, vector_D: Floats) -> float:
        """Return the cosine with the nearest earlier query, -1 for the first, and remember this one."""
        held = min(self.count, len(self.rows_ND))
        nearest = float((self.rows_ND[:held] @ vector_D).max()) if held else -1.0
        if self.count == len(self.rows_ND) < _MOST:
            self.rows_ND = np.concatenate([self.rows_ND, np.zeros_like(self.rows_ND)])[:_MOST]
        self.rows_ND[self.count % len(self.rows_ND)] = vector_D
        self.count += 1
        return nearest


class Prada:
    """1 - W of the distances to the nearest earlier query."""

    name = "PRADA"

    def __init__(self) -> None:
        self._queries: dict[str, _Queries] = {}
        self._distances: dict[str, list[float]] = {}
        self._score: dict[str, float] = {}

    def see(self, seen: Seen) -> float:
        """Return 1 - W as of the last test, 0 before the first."""
        account = seen.one.account
        nearest = self._queries.setdefault(account, _Queries()).add(seen.vector_D)
        distances = self._distances.setdefault(account, [])
        if nearest > -1:
            distances.append(1.0 - nearest)
            del distances[:-_MOST]
        if len(distances) >= _LEAST and len(distances) % _EVERY == 0:
            flat = np.ptp(distances) < 1e-9
            self._score[account] = 1.0 if flat else 1.0 - float(shapiro(distances).statistic)
        return self._score.get(account, 0.0)


class Seat:
    """Queries with a similar earlier one."""

    name = "SEAT"

    def __init__(self) -> None:
        self._queries: dict[str, _Queries] = {}
        self._pairs: dict[str, int] = {}

    def see(self, seen: Seen) -> float:
        """Return how many queries of the account had a similar predecessor."""
        account = seen.one.account
        near = self._queries.setdefault(account, _Queries()).add(seen.vector_D) > _SIMILAR
        self._pairs[account] = self._pairs.get(account, 0) + near
        return float(self._pairs[account])
