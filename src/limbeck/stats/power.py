"""How many items would settle a question, and how small a loss a given number can show."""

import math

from scipy.special import ndtri

from limbeck.stats.retention import Moments

POWER = 0.8
"""Chance of an answer at which the figures here aim."""


def more_items(
    found: Moments, margin: float, items: int, *, confidence: float = 0.95, power: float = POWER
) -> int | None:
    """Return how many further items, like those at hand, would settle on which side of the margin retention lies.

    With the effect d = student - margin x teacher seen so far and its standard error e over n items, n' items have
    the error e sqrt(n / n'), and the test has the wanted power where d = (z_confidence + z_power) error.

    Args:
        found: Means and covariances at `items` items.
        margin: Retention that is tested against.
        items: How many there are.
        confidence: Of the two-sided interval.
        power: Chance that the larger set settles it, in (0, 1).

    Returns:
        At least 1; None where the effect is so near to 0 that a thousand times the items would not do.
    """
    effect = abs(found.student - margin * found.teacher)
    reach = _reach(confidence, power) * found.error(margin)
    if not math.isfinite(reach) or reach > effect * math.sqrt(1000):
        return None
    return max(1, math.ceil(items * ((reach / effect) ** 2 - 1)))


def smallest_loss(
    found: Moments, items: int, *, confidence: float = 0.95, power: float = POWER
) -> float | None:
    """Return how far below 1 retention must lie for this many items to show it; None where the teacher is at chance.

    The minimal detectable effect d of student - teacher, over the teacher's lift. A loss adds noise of its own: each
    lost item costs about one lift, so that d = (z_confidence + z_power) sqrt(e^2 + d / n) with today's error e.

    Args:
        found: Means and covariances.
        items: How many there are.
        confidence: Of the two-sided interval.
        power: Chance of showing a loss of that size, in (0, 1).
    """
    error = found.error(1.0)
    if found.teacher <= 0 or not math.isfinite(error):
        return None
    square = _reach(confidence, power) ** 2
    own = square / items
    return (own + math.sqrt(own * own + 4 * square * error * error)) / 2 / found.teacher


def _reach(confidence: float, power: float) -> float:
    return float(ndtri((1 + confidence) / 2)) + float(ndtri(power))
