"""Prediction-powered inference: cheap votes on many items, corrected by verified outcomes on a few.

On n verified items both the outcome Y and the votes f are known, on N others the votes alone. The estimate

    theta = mean_n(Y) + power (mean_N(f) - mean_n(f))

is unbiased for *any* votes, however wrong, as long as both samples are drawn from one population: what the votes get
wrong on the verified items is taken off again (Angelopoulos et al., Science 382, 2023). The power in [0, 1] is the one
that makes the variance smallest (PPI++: Angelopoulos, Duchi and Zrnic 2023, arXiv:2311.01453, section 6),

    Var(theta) = Var_n(Y) - 2 power Cov_n(Y, f) + power^2 (Var_n(f) + Var_N(f)),
    power = Cov_n(Y, f) / (Var_n(f) + Var_N(f)),

so that useless votes are given none and the estimate is never worse than the verified items alone, up to the noise of
the power itself. Variances are those of means, with clusters as the sampling unit:
Var(mean) = G / (G - 1) sum_G (sum_i (z_i - mean))^2 / n^2. For clusters of one this is the formula of the paper. The
interval takes Student's t with the degrees of freedom of Welch and Satterthwaite.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from limbeck.stats.estimate import Estimate

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Corrected:
    """A mean whose bias the verified items took off."""

    value: float
    error: float
    """Standard error."""
    freedom: float
    """Degrees of freedom of the standard error."""
    power: float
    """Share of the votes that was used, in [0, 1]."""
    verified: int
    """Clusters with outcome and votes."""
    voted: int
    """Clusters with votes alone."""


def corrected_mean(
    outcome_I: Doubles,
    vote_I: Doubles,
    cluster_I: Ints,
    vote_N: Doubles,
    cluster_N: Ints,
    *,
    power: float | None = None,
) -> Corrected:
    """Return the mean outcome of the population both samples come from.

    Args:
        outcome_I: Verified outcomes of I items, in two clusters at least.
        vote_I: Votes on the same items, on the scale of the outcomes.
        cluster_I: Cluster of each, as integers from 0 without gaps.
        vote_N: Votes on N other items; none at all or two clusters at least.
        cluster_N: Cluster of each, numbered for themselves.
        power: Share of the votes to use, in [0, 1]; None takes the best.
    """
    y = _centred(outcome_I, cluster_I)
    f = _centred(vote_I, cluster_I)
    g = _centred(vote_N, cluster_N)
    if len(g) < 2:
        power = 0.0
    elif power is None:
        spread = _product(f, f) + _product(g, g)
        power = float(np.clip(_product(y, f) / spread, 0, 1)) if spread > 0 else 0.0
    labelled, unlabelled = _product(y - power * f, y - power * f), power**2 * _product(g, g)
    shift = float(vote_N.mean() - vote_I.mean()) if power > 0 else 0.0
    return Corrected(
        value=float(outcome_I.mean()) + power * shift,
        error=math.sqrt(labelled + unlabelled),
        freedom=_freedom([(labelled, len(y) - 1), (unlabelled, len(g) - 1)]),
        power=power,
        verified=len(y),
        voted=len(g),
    )


def pool(parts: Sequence[Corrected], weights: Sequence[float], confidence: float) -> Estimate:
    """Return the weighted mean of several families, each corrected for itself, with its interval in [0, 1].

    Strata share no items, so variances add (Fisch et al. 2024, "Stratified prediction-powered inference",
    arXiv:2406.04291).

    Args:
        parts: At least one.
        weights: Share of each family, summing to 1.
        confidence: Of the two-sided interval, in (0, 1).
    """
    value = sum(w * part.value for part, w in zip(parts, weights, strict=True))
    terms = [((w * p.error) ** 2, p.freedom) for p, w in zip(parts, weights, strict=True)]
    half = float(stdtrit(_freedom(terms), (1 + confidence) / 2)) * math.sqrt(
        sum(v for v, _ in terms)
    )
    return Estimate(
        value=min(1.0, max(0.0, value)),
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        n=sum(p.verified for p in parts),
        confidence=confidence,
        method="prediction-powered",
    )


def _centred(value_I: Doubles, cluster_I: Ints) -> Doubles:
    """Return each cluster's part of (mean of the sample - mean of the population)."""
    if not len(value_I):
        return np.zeros(0)
    return np.bincount(cluster_I, value_I - value_I.mean()) / len(value_I)


def _product(a_G: Doubles, b_G: Doubles) -> float:
    """Return the covariance of two means from the parts that each cluster has in them."""
    clusters = len(a_G)
    return 0.0 if clusters < 2 else float(clusters / (clusters - 1) * (a_G @ b_G))


def _freedom(terms: Sequence[tuple[float, float]]) -> float:
    """Return the degrees of freedom of a sum of variances (Welch, Biometrika 34, 1947)."""
    total = sum(variance for variance, _ in terms)
    doubt = sum(variance**2 / freedom for variance, freedom in terms if variance > 0)
    return total**2 / doubt if doubt > 0 else max(1.0, *(freedom for _, freedom in terms))
