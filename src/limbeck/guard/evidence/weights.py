"""Learns in which directions copiers differ from one honest rival, with signs that are fixed beforehand.

Logistic regression with a ridge, and each weight either zero or of the sign that `features.SENSE` gives: the fit chooses how
much a signal counts, never that it counts the other way round because of the texts that it happened to see.
"""

import numpy as np

from limbeck.guard.evidence.conformal import Doubles
from limbeck.guard.features import SENSE

RIDGE = 0.03
"""Times half the squared length of the weights, per unit of mean loss."""


def direction(
    honest_NF: Doubles, honest_N: Doubles, copying_NF: Doubles, copying_N: Doubles
) -> Doubles:
    """Return the weights of the log odds of copying against one honest class; shape [F].

    Args:
        honest_NF: Rows of the honest class.
        honest_N: Their weights; they are made to sum to 1.
        copying_NF: Rows of one way of copying.
        copying_N: Their weights.
    """
    from scipy.optimize import minimize

    sense_F = np.array(SENSE, np.float64)
    both_NF = np.concatenate([honest_NF, copying_NF]) * sense_F
    spread_F = np.maximum(both_NF.std(axis=0), 0.02)
    middle_F = both_NF.mean(axis=0)
    x_NF = (both_NF - middle_F) / spread_F
    sign_N = np.r_[-np.ones(len(honest_NF)), np.ones(len(copying_NF))]
    weight_N = np.r_[honest_N / honest_N.sum(), copying_N / copying_N.sum()] / 2

    def loss(v: Doubles) -> tuple[float, Doubles]:
        margin_N = sign_N * (x_NF @ v[:-1] + v[-1])
        value = float(weight_N @ np.logaddexp(0.0, -margin_N) + RIDGE / 2 * (v[:-1] @ v[:-1]))
        slope_N = -weight_N * sign_N / (1.0 + np.exp(np.clip(margin_N, -500, 500)))
        return value, np.r_[slope_N @ x_NF + RIDGE * v[:-1], slope_N.sum()]

    size = x_NF.shape[1]
    bounds = [(0.0, None if sense else 0.0) for sense in SENSE] + [(None, None)]
    found = minimize(loss, np.zeros(size + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x[:-1]) / spread_F * sense_F
