"""What one worker counts, in plain numbers; the keeper adds the workers up."""

from bisect import bisect_left
from typing import Any

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Counters:
    """Requests by endpoint and status, refusals by code, time to the reply's end, tokens, bytes, gaps."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.refusals: dict[str, int] = {}
        self.seconds = [0] * (len(BUCKETS_S) + 1)
        self.seconds_sum = 0.0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.streams = 0
        self.events = 0
        self.cut = 0
        self.late = 0
        self.upstream_errors = 0
        self.gone = 0
        self.broken = 0
        self.gaps = 0
        self.in_flight = 0

    def served(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one request that has its answer."""
        key = (endpoint, status)
        requests = self.requests
        requests[key] = requests.get(key, 0) + 1
        self.seconds[bisect_left(BUCKETS_S, seconds)] += 1
        self.seconds_sum += seconds

    def refused(self, code: str) -> None:
        """Count one refusal."""
        self.refusals[code] = self.refusals.get(code, 0) + 1

    def snapshot(self) -> dict[str, Any]:
        """Return everything as JSON would have it."""
        plain = {name: value for name, value in vars(self).items() if name not in ("requests",)}
        plain["requests"] = [[*key, count] for key, count in self.requests.items()]
        return plain
