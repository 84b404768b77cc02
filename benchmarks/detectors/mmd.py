"""Maximum mean discrepancy between an account's last queries and the population (windows as in arXiv 2606.05725).

The kernel is Gaussian over cheap embeddings, approximated by random Fourier features (Rahimi and Recht, 2007), so that
a window's mean is updated in constant time; the squared distance of means is the biased MMD^2.
"""

import numpy as np

from detectors.reader import DIMENSIONS, Floats, Seen

_FEATURES = 128
_WIDTH = 0.7
"""Of the Gaussian, about the median distance between unit vectors here."""


class Mmd:
    """MMD^2 of an account's last `window` queries."""

    def __init__(self, window: int, population_ND: Floats, *, seed: int) -> None:
        """Fit the population's mean."""
        self.name = f"MMD, window {window}"
        self._window = window
        rng = np.random.default_rng(seed)
        self._map_DF = rng.normal(0, 1 / _WIDTH, (DIMENSIONS, _FEATURES)).astype(np.float32)
        self._phase_F = rng.uniform(0, 2 * np.pi, _FEATURES).astype(np.float32)
        self._mean_F = self._features(population_ND).mean(axis=0)
        self._rows: dict[str, Floats] = {}
        self._sum: dict[str, Floats] = {}
        self._count: dict[str, int] = {}

    def see(self, seen: Seen) -> float:
        """Return MMD^2 once the window is full, 0 before."""
        account = seen.one.account
        row_F = self._features(seen.vector_D[None])[0]
        count = self._count.get(account, 0)
        rows_WF = self._rows.get(account)
        if rows_WF is None or (count == len(rows_WF) < self._window):
            grown = np.zeros((min(self._window, max(16, 2 * count)), _FEATURES), np.float32)
            if rows_WF is not None:
                grown[:count] = rows_WF
            rows_WF = self._rows[account] = grown
            self._sum.setdefault(account, np.zeros(_FEATURES, np.float32))
        place = count % len(rows_WF)
        self._sum[account] += row_F - rows_WF[place]
        rows_WF[place] = row_F
        self._count[account] = count + 1
        if count + 1 < self._window:
            return 0.0
        return float(((self._sum[account] / self._window - self._mean_F) ** 2).sum())

    def _features(self, vector_ND: Floats) -> Floats:
        return np.sqrt(2 / _FEATURES) * np.cos(vector_ND @ self._map_DF + self._phase_F)
