"""How much of the undefended gain so many released answers give, as `guard_gain.py` measured it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

KEPT = 0.8
"""Share of the gain that a copier insists on."""
POOL = 600
"""Answers for the whole gain, where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Gain by released answers, linear between what was measured, 0 at none."""

    answers: tuple[float, ...]
    """Ascending, from 0; the last is the undefended campaign's."""
    shares: tuple[float, ...]
    """Of the undefended gain; the last is 1."""
    measured: bool

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """Read the last line of `guard_gain.py`; without a file, assume that gain grows with the answers."""
        if path is None:
            return cls((0.0, float(POOL)), (0.0, 1.0), measured=False)
        found = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        points = sorted((p["released"], p["gain_released"]) for p in found["points"])
        rows = [(0.0, 0.0), *points, (float(found["pool"]), 1.0)]
        return cls(
            tuple(float(n) for n, _ in rows), tuple(float(s) for _, s in rows), measured=True
        )

    @property
    def pool(self) -> int:
        """Answers of an undefended campaign."""
        return int(self.answers[-1])

    def share(self, released: float) -> float:
        """Return the share of the undefended gain that so many answers give."""
        return float(np.interp(released, self.answers, self.shares))

    @property
    def needed(self) -> int:
        """The fewest answers from which on every larger number gives at least `KEPT` of the gain."""
        fine = np.arange(self.pool + 1)
        enough = np.interp(fine, self.answers, self.shares) >= KEPT
        return int(
            fine[-1]
            if not enough.any()
            else len(enough) - np.argmin(enough[::-1])
            if not enough.all()
            else 0
        )
