"""Several judges on the same items: their mean vote, and how many independent votes it is worth.

Judges err together: they were trained on much the same text. With errors e_j = vote_j - outcome on the verified items
and their correlations r_jk, the mean of m votes varies as much as that of

    n_eff = m^2 / sum_jk r_jk

independent ones of the same quality (Kish, Survey Sampling, 1965, section 8.2, the design effect, with unequal
correlations). It is at least 1 and at most m; correlations below 0 count as 0, for a sample shows such luck too easily.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

_FEWEST_SHARED = 3


def mean_votes(vote_JI: Doubles) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """Return the panel's vote on each item, and which items have one.

    An item that no judge gave a verdict on gets the mean of the others, which tells nothing about it; it is not a
    tie, and `corrected_mean` stays unbiased whatever stands there.

    Args:
        vote_JI: Votes in [0, 1]; NaN where a judge gave no verdict.
    """
    present_JI = ~np.isnan(vote_JI)
    count_I = present_JI.sum(0)
    voted_I = count_I > 0
    mean_I = np.where(present_JI, vote_JI, 0).sum(0) / np.maximum(1, count_I)
    neutral = float(mean_I[voted_I].mean()) if voted_I.any() else 0.0
    return np.where(voted_I, mean_I, neutral), voted_I


def effective_votes(error_JI: Doubles) -> float:
    """Return how many independent votes a panel is worth, between 1 and the number of judges.

    Two judges of whom one never erred, or who share fewer than three items, count as one vote: nothing shows that
    they err apart.

    Args:
        error_JI: Vote minus verified outcome; NaN where a judge gave no verdict. At least one judge.
    """
    judges = len(error_JI)
    correlation_JJ = np.eye(judges)
    for one in range(judges):
        for other in range(one):
            r = _correlation(error_JI[one], error_JI[other])
            correlation_JJ[one, other] = correlation_JJ[other, one] = r
    return judges**2 / float(correlation_JJ.sum())


def _correlation(one_I: Doubles, other_I: Doubles) -> float:
    """Return the correlation of two judges' errors in [0, 1]; 1 where nothing can be said."""
    shared_I = ~np.isnan(one_I) & ~np.isnan(other_I)
    one, other = one_I[shared_I], other_I[shared_I]
    if len(one) < _FEWEST_SHARED or one.std() == 0 or other.std() == 0:
        return 1.0
    return float(np.clip(np.corrcoef(one, other)[0, 1], 0, 1))


def vote_matrix(votes: Sequence[Sequence[float | None]]) -> Doubles:
    """Return votes [J, I] as an array, NaN where there is none."""
    return np.array([[np.nan if v is None else v for v in row] for row in votes], dtype=np.float64)
