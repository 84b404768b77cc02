"""Turns labelled rows into scorers: a direction for every rival and way of copying, in that rival's own spread."""

from collections.abc import Sequence

import numpy as np

from limbeck.guard.evidence.calibration import Scorer, capped
from limbeck.guard.evidence.checkpoints import POINTS
from limbeck.guard.evidence.conformal import Doubles
from limbeck.guard.evidence.history import Ints, Mask, Rows
from limbeck.guard.evidence.weights import direction
from limbeck.guard.features import SENSE

CAPPED = 0.9
"""Quantile of copiers up to which a feature counts."""
MOST_ROWS = 3000
"""Rows of each side that a direction is learned from."""
LEAST_ROWS = 8
"""Rows of a family at a checkpoint from which it has a spread of its own there."""
FLOOR = 0.3
"""Least spread at a checkpoint, as a share of the rival's spread over all of them."""


def against(
    rows: Rows, family_O: Ints, rival_O: Mask, copying: Sequence[Rows], *, seed: int
) -> tuple[Doubles, Doubles, Doubles]:
    """Return weights [J, F], centres [K, J] and scales [K, J] against one rival.

    Centre and scale are those of the rival's least favourable family at each checkpoint: to beat a rival is to beat
    the part of it that looks most like copying.

    Args:
        rows: All honest rows of one kind.
        family_O: The family of every owner, as a number.
        rival_O: Which owners are the rival's and may be learned from.
        copying: Rows of each way of copying.
        seed: Draws rows where there are too many.
    """
    rng = np.random.default_rng(seed)
    honest = rows.of(rival_O)
    cap_JF = caps(copying)
    weight_JF = np.stack(
        [
            direction(*_balanced(honest, family_O, cap_F, rng), *_balanced(of, None, cap_F, rng))
            for of, cap_F in zip(copying, cap_JF, strict=True)
        ]
    )
    raw_NJ = np.einsum("njf,jf->nj", capped(honest.feature_NF[:, None, :], cap_JF), weight_JF)
    centre_KJ, scale_KJ = _spread(raw_NJ, honest.place_N, family_O[honest.owner_N])
    return weight_JF, centre_KJ, scale_KJ


def caps(copying: Sequence[Rows]) -> Doubles:
    """Return how far each feature counts towards each way of copying: up to what nine in ten rows stay below; [J, F]."""
    sense_F = np.array(SENSE, np.float64)
    return np.stack(
        [np.quantile(rows.feature_NF * sense_F, CAPPED, axis=0) * sense_F for rows in copying]
    )


def stack(parts: Sequence[tuple[Doubles, Doubles, Doubles]], cap_JF: Doubles) -> Scorer:
    """Put the scorers against single rivals together, without any margin."""
    weights, centres, scales = zip(*parts, strict=True)
    centre_KRJ, scale_KRJ = np.stack(centres, axis=1), np.stack(scales, axis=1)
    return Scorer(np.stack(weights), cap_JF, centre_KRJ, scale_KRJ, np.zeros(len(cap_JF)))


def _balanced(
    rows: Rows, family_O: Ints | None, cap_F: Doubles, rng: np.random.Generator
) -> tuple[Doubles, Doubles]:
    """Rows and their weights: every family counts alike, in it every owner."""
    n = len(rows.owner_N)
    keep_N = np.sort(rng.permutation(n)[:MOST_ROWS])
    owner_N = rows.owner_N[keep_N]
    count_O = np.bincount(owner_N)
    weight_N = 1.0 / count_O[owner_N]
    if family_O is not None:
        of_N = family_O[owner_N]
        weight_N /= np.bincount(of_N, weight_N)[of_N]
    return capped(rows.feature_NF[keep_N], cap_F), weight_N


def _spread(raw_NJ: Doubles, place_N: Ints, family_N: Ints) -> tuple[Doubles, Doubles]:
    overall_J = np.maximum(raw_NJ.std(axis=0), 1e-6)
    families = np.unique(family_N)
    centre_KJ = np.empty((len(POINTS), raw_NJ.shape[1]))
    scale_KJ = np.empty_like(centre_KJ)
    for place in range(len(POINTS)):
        near = [raw_NJ[(family_N == f) & (np.abs(place_N - place) <= 1)] for f in families]
        near = [x for x in near if len(x) >= LEAST_ROWS] or [raw_NJ]
        centre_KJ[place] = np.max([x.mean(axis=0) for x in near], axis=0)
        scale_KJ[place] = np.max([x.std(axis=0) for x in near], axis=0)
    return centre_KJ, np.maximum(scale_KJ, FLOOR * overall_J)
