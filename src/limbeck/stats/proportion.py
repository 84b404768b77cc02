"""Intervals of a proportion."""

import math

from scipy.special import betaincinv, ndtri

from limbeck.stats.estimate import Estimate, check_confidence


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return a proportion with its score interval (Wilson, JASA 22, 1927).

    Raises:
        ValueError: Not 0 <= successes <= n, n below 1, or a confidence outside (0, 1).
    """
    _check(successes, n, confidence)
    z = float(ndtri((1 + confidence) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(share, low, high, n, confidence, "Wilson")


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return a proportion with its exact interval (Clopper and Pearson, Biometrika 26, 1934).

    Raises:
        ValueError: Not 0 <= successes <= n, n below 1, or a confidence outside (0, 1).
    """
    _check(successes, n, confidence)
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return Estimate(successes / n, low, high, n, confidence, "Clopper-Pearson")


def _check(successes: int, n: int, confidence: float) -> None:
    check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n >= 1, got {successes}/{n}")
