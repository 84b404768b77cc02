"""When evidence is weighed: after these numbers of requests, fixed beforehand."""

import bisect

POINTS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Requests; every 128 beyond the last, which are compared like the last."""
STEADY = 128
_PLACE = {point: place for place, point in enumerate(POINTS)}


def due(requests: int) -> int | None:
    """Return the place of the checkpoint that this number of requests is, or None between checkpoints."""
    if requests > POINTS[-1]:
        return len(POINTS) - 1 if requests % STEADY == 0 else None
    return _PLACE.get(requests)


def nearest(requests: int) -> int:
    """Return the place of the last checkpoint at or before this number of requests; the first before all."""
    return max(0, bisect.bisect_right(POINTS, requests) - 1)
