"""The counts of all workers, as Prometheus reads them."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from limbeck.guard.brain import Brain
from limbeck.guard.counters import BUCKETS_S

Snapshot = Mapping[str, Any]
_PLAIN = {
    "prompt_tokens": "Tokens of prompts that were served",
    "completion_tokens": "Tokens of answers",
    "cut": "Replies that hidden reasoning was taken out of",
    "late": "Streams whose reasoning was seen to be reasoning only after it had left; set starts_thinking",
    "upstream_errors": "Requests that the upstream did not answer",
    "gone": "Requests whose client left before the answer was complete",
    "broken": "Streams that ended early",
    "gaps": "Observations that a worker had no room for",
}


class Tally:
    """Adds workers up. A worker that ends leaves its counts behind."""

    def __init__(self) -> None:
        self._live: dict[int, Snapshot] = {}
        self._past: list[Snapshot] = []

    @property
    def workers(self) -> int:
        """How many workers count at the moment."""
        return len(self._live)

    def update(self, worker: int, snapshot: Snapshot) -> None:
        """Take a worker's counts so far."""
        self._live[worker] = snapshot

    def end(self, worker: int) -> None:
        """Keep the counts of a worker that has ended."""
        if (snapshot := self._live.pop(worker, None)) is not None:
            self._past = [_add([*self._past, {**snapshot, "in_flight": 0}])]

    def total(self) -> dict[str, Any]:
        """Return the sum."""
        return _add([*self._past, *self._live.values()])


def _add(snapshots: Iterable[Snapshot]) -> dict[str, Any]:
    total: dict[str, Any] = {
        "requests": {}, "refusals": {}, "seconds": [0] * (len(BUCKETS_S) + 1), "seconds_sum": 0.0, "in_flight": 0,
        **dict.fromkeys(_PLAIN, 0),
    }  # fmt: skip
    for one in snapshots:
        for path, status, count in one["requests"]:
            key = (path, status)
            total["requests"][key] = total["requests"].get(key, 0) + count
        for code, count in one["refusals"].items():
            total["refusals"][code] = total["refusals"].get(code, 0) + count
        total["seconds"] = [a + b for a, b in zip(total["seconds"], one["seconds"], strict=True)]
        for name in ("seconds_sum", "in_flight", *_PLAIN):
            total[name] += one[name]
    total["requests"] = [[*key, count] for key, count in total["requests"].items()]
    return total


class _Families(Collector):
    def __init__(self, total: Mapping[str, Any], workers: int, brain: Brain | None) -> None:
        self._total = total
        self._workers = workers
        self._brain = brain

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        total = self._total
        requests = CounterMetricFamily(
            "limbeck_requests", "Requests by endpoint and status", labels=["endpoint", "status"]
        )
        for path, status, count in total["requests"]:
            requests.add_metric([path, str(status)], count)
        yield requests
        refusals = CounterMetricFamily(
            "limbeck_refusals", "Requests that the gateway refused, by code", labels=["code"]
        )
        for code, count in total["refusals"].items():
            refusals.add_metric([code], count)
        yield refusals
        yield _histogram(total)
        yield GaugeMetricFamily("limbeck_in_flight", "Requests under way", total["in_flight"])
        yield GaugeMetricFamily("limbeck_workers", "Workers that count", self._workers)
        for name, text in _PLAIN.items():
            yield CounterMetricFamily(f"limbeck_{name}", text, total[name])
        if self._brain is not None:
            yield from _of_the_brain(self._brain)


def _histogram(total: Mapping[str, Any]) -> HistogramMetricFamily:
    histogram = HistogramMetricFamily(
        "limbeck_seconds", "Seconds from a request's headers to the end of its reply"
    )
    buckets: list[tuple[str, float]] = []
    so_far = 0
    for edge, count in zip((*map(str, BUCKETS_S), "+Inf"), total["seconds"], strict=True):
        so_far += count
        buckets.append((edge, so_far))
    histogram.add_metric([], buckets, total["seconds_sum"])
    return histogram


def _of_the_brain(brain: Brain) -> Iterable[Metric]:
    yield CounterMetricFamily(
        "limbeck_observed", "Requests that the signals have seen", brain.observed
    )
    yield CounterMetricFamily(
        "limbeck_unseen", "Requests that no signal has seen: gaps", brain.gaps
    )
    yield CounterMetricFamily(
        "limbeck_sampled_out",
        "Requests of floods that were left out of the sample",
        brain.sampled_out,
    )
    yield CounterMetricFamily(
        "limbeck_skipped", "Requests that a signal could not take", brain.skipped
    )
    yield CounterMetricFamily(
        "limbeck_recorded", "Records in the ledger since the start", brain.recorded
    )
    yield GaugeMetricFamily("limbeck_pending", "Records that wait for the ledger", brain.pending)
    decided = CounterMetricFamily(
        "limbeck_decisions", "Changes of what evidence asks for, by action", labels=["action"]
    )
    for action, count in brain.decided.items():
        decided.add_metric([action], count)
    yield decided
    up = GaugeMetricFamily("limbeck_part_up", "Whether a part of the keeper works", labels=["part"])
    for part in ("ledger", "sanctions", "watch"):
        up.add_metric([part], getattr(brain.health, part) is None)
    yield up


def render(tally: Tally, brain: Brain | None = None) -> bytes:
    """Return the exposition."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(tally.total(), tally.workers, brain))
    return generate_latest(registry)
