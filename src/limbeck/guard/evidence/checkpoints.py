"""When evidence is weighed: after these numbers of requests, fixed beforehand."""

import bisect

POINTS = (
    4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256,
)  # fmt: skip
"""Requests; every 128 beyond the last, which are compared like the last."""
STEADY = 128
CLUSTER_FROM = 16
"""Requests from which a cluster is weighed: before, it is little more than its first account."""
_PLACE = {point: place for place, point in enumerate(POINTS)}


def due(requests: int) -> int | None:
    """Return the place of the checkpoint that this number of requests is, or None between checkpoints."""
    if requests > POINTS[-1]:
        return len(POINTS) - 1 if requests % STEADY == 0 else None
    return _PLACE.get(requests)


def nearest(requests: int) -> int:
    """Return the place of the last checkpoint at or before this number of requests; the first before all."""
    return max(0, bisect.bisect_right(POINTS, requests) - 1)
