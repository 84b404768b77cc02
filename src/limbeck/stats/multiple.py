"""Many tests at once: adjusted p-values, and discoveries from e-values."""

from collections.abc import Callable, Sequence

import numpy as np

_Factor = Callable[[int, int], float]
"""(rank from 0, number of tests) to the factor of that p-value."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that any one false rejection is as rare as alpha.

    Holm's step-down method (Scandinavian Journal of Statistics 6, 1979); no independence is needed.

    Raises:
        ValueError: A p-value outside [0, 1].
    """
    return _step(p_values, lambda rank, m: m - rank, down=True)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that the expected share of false rejections is at most alpha.

    Benjamini and Hochberg (JRSS B 57, 1995); holds for independent or positively dependent tests.

    Raises:
        ValueError: A p-value outside [0, 1].
    """
    return _step(p_values, lambda rank, m: m / (rank + 1), down=False)


def e_benjamini_hochberg(e_values: Sequence[float], alpha: float) -> list[bool]:
    """Return which hypotheses are rejected at a false discovery rate of alpha, from e-values.

    Wang and Ramdas (JRSS B 84, 2022): the k largest are rejected for the largest k with e_(k) >= m / (alpha k).
    It holds under any dependence.

    Raises:
        ValueError: An e-value below 0, or alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    if any(not e >= 0 for e in e_values):
        raise ValueError(f"e-values must be at least 0, got {min(e_values)}")
    ranked = sorted(e_values, reverse=True)
    m = len(ranked)
    kept = [k for k, e in enumerate(ranked, 1) if e >= m / (alpha * k)]
    if not kept:
        return [False] * m
    return [e >= ranked[kept[-1] - 1] for e in e_values]


def _step(p_values: Sequence[float], factor: _Factor, *, down: bool) -> list[float]:
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values must be in [0, 1], got {list(p_values)}")
    m = len(p_values)
    order = np.argsort(np.asarray(p_values, dtype=np.float64), kind="stable")
    scaled = [p_values[i] * factor(rank, m) for rank, i in enumerate(order)]
    running = np.maximum.accumulate(scaled) if down else np.minimum.accumulate(scaled[::-1])[::-1]
    adjusted = [0.0] * m
    for i, p in zip(order, running, strict=True):
        adjusted[i] = min(1.0, float(p))
    return adjusted
