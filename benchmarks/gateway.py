"""The guard beside other gateways: requests a second, added time, processor time, memory, and whose bytes arrive.

All gateways run with two workers in front of one mock model server, on the same two cores as the load, and take
turns in every round. `python benchmarks/gateway.py` prints a table and one JSON line. It needs `wrk` (Debian: apt
install wrk) and `make baselines-gateway`.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_arms as arms
from gateway_load import burst, memory_mb, paced, processor_s, whole_reply
from mockserver import EVENTS

CONNECTIONS = 64
PACE = 50.0
WARM_UP_S = 10
PROMPT = (
    "Describe how a limbeck separates what was mixed, and why its first and last drops are kept apart. "
    * 10
)


def request_body(*, stream: bool) -> bytes:
    """Return a chat request of about 1.2 KB."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant who answers in one paragraph."},
        {"role": "user", "content": PROMPT},
    ]
    asked: dict[str, Any] = {
        "model": "mock",
        "messages": messages,
        "temperature": 0.7,
        "max_tokens": 256,
    }
    return json.dumps(
        {**asked, "stream": True} if stream else asked, separators=(",", ":")
    ).encode()


def wire(body: bytes, key: str) -> bytes:
    """Return a request as bytes on the wire."""
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


class Rounds:
    """What was measured of one arm, a list of values for each figure."""

    def __init__(self, arm: arms.Arm) -> None:
        self.arm = arm
        self.values: dict[str, list[float]] = {}
        self.first_key = arm.keys.read_text().split()[0]

    def add(self, name: str, value: float) -> None:
        """Note one round's value."""
        self.values.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        """Return a figure's median over the rounds."""
        return statistics.median(self.values[name])


def speed(measured: Rounds, bodies: dict[str, Path], place: Path, seconds: int) -> None:
    """Measure full speed, whole replies and streams, and the processor time that both took."""
    arm = measured.arm
    for kind, unit in (("whole", 1), ("stream", EVENTS)):
        before = processor_s(arm.pid)
        load = burst(
            arm.port, bodies[kind], arm.keys, seconds=seconds, connections=CONNECTIONS, place=place
        )
        _settle()
        spent = processor_s(arm.pid) - before
        if load.bad:
            raise SystemExit(f"{arm.name}: {load.bad} of {load.requests} requests failed")
        measured.add(f"{kind}_rps", load.rps)
        measured.add(f"{kind}_p99_ms", load.p99_ms)
        measured.add(f"{kind}_cpu_us", spent / max(load.requests, 1) / unit * 1e6)


def _settle() -> None:
    """Let whoever works behind the data path catch up, so that its time is counted too."""
    import time

    time.sleep(1.0)


def latency(measured: Rounds, direct_port: int, count: int) -> None:
    """Measure what a request takes at a steady pace, beside the model server asked directly."""
    arm = measured.arm
    request = wire(request_body(stream=False), measured.first_key)
    own = asyncio.run(paced(direct_port, request, count=count, per_s=PACE))
    through = asyncio.run(paced(arm.port, request, count=count, per_s=PACE))
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        measured.add(f"added_{name}_ms", (quantile(through, share) - quantile(own, share)) * 1e3)


def quantile(values: list[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def identical(arm_port: int, direct_port: int, key: str, count: int) -> float:
    """Return the share of replies that are the model server's own, byte by byte."""
    ours = await asyncio.open_connection("127.0.0.1", arm_port)
    theirs = await asyncio.open_connection("127.0.0.1", direct_port)
    same = 0
    for number in range(count):
        request = wire(request_body(stream=number % 2 == 1), key)
        replies: list[bytes] = []
        for reader, writer in (ours, theirs):
            writer.write(request)
            replies.append(await whole_reply(reader))
        same += replies[0] == replies[1]
    return same / count


def growth_mb(measured: Rounds, body: Path, place: Path, requests: int) -> float:
    """Return by how much the memory grows over so many requests, after a warm-up of a tenth of them."""
    arm, sent, start = measured.arm, 0, None
    while sent < requests * 1.1:
        sent += burst(
            arm.port, body, arm.keys, seconds=10, connections=CONNECTIONS, place=place
        ).requests
        if start is None and sent >= requests * 0.1:
            start = memory_mb(arm.pid)
    return memory_mb(arm.pid) - (start or 0.0)


def compare(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run all arms in turns; return the figures."""
    bodies = {kind: place / f"{kind}.json" for kind in ("whole", "stream")}
    for kind, path in bodies.items():
        path.write_bytes(request_body(stream=kind == "stream"))
    starters: list[Callable[..., Any]] = [arms.ours, arms.bare]
    starters += [] if options.alone else [arms.vllm_router, arms.litellm]
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(arms.mock(place))
        port = int(upstream.rsplit(":", 1)[1])
        measured = [Rounds(stack.enter_context(start(place, upstream))) for start in starters]
        for one in (
            measured
        ):  # not counted: caches warm, and the guard's looks at each account are used up
            seconds = WARM_UP_S if one is measured[0] else 2
            burst(
                one.arm.port,
                bodies["whole"],
                one.arm.keys,
                seconds=seconds,
                connections=CONNECTIONS,
                place=place,
            )
        for _ in range(options.rounds):
            for one in measured:
                speed(one, bodies, place, options.seconds)
            for one in measured:
                latency(one, port, options.paced)
        for one in measured:
            one.add("memory_mb", memory_mb(one.arm.pid))
        ours = measured[0]
        share = asyncio.run(identical(ours.arm.port, port, ours.first_key, 1000))
        grown = growth_mb(ours, bodies["whole"], place, options.growth) if options.growth else None
    table(measured)
    return figures(measured, share, grown)


def many_accounts_mb(place: Path, count: int) -> float:
    """Return the memory of the guard with so many accounts, after each was seen once or more."""
    with arms.mock(place) as upstream, arms.ours(place, upstream, accounts=count) as arm:
        body = place / "whole.json"
        body.write_bytes(request_body(stream=False))
        sent = 0
        while sent < count:
            sent += burst(
                arm.port, body, arm.keys, seconds=5, connections=CONNECTIONS, place=place
            ).requests
        return memory_mb(arm.pid)


def table(measured: list[Rounds]) -> None:
    """Print the medians."""
    names = [
        "whole_rps",
        "whole_p99_ms",
        "whole_cpu_us",
        "stream_cpu_us",
        "added_p50_ms",
        "added_p99_ms",
        "memory_mb",
    ]
    print(f"{'':<20}" + "".join(f"{name:>15}" for name in names))
    for one in measured:
        print(f"{one.arm.name:<20}" + "".join(f"{one.median(name):>15.2f}" for name in names))


def figures(measured: list[Rounds], share: float, grown: float | None) -> dict[str, Any]:
    """Return the contract's line."""
    by_name = {one.arm.name: one for one in measured}
    ours, bare = by_name["limbeck guard"], by_name["bare pass-through"]
    router, lite = by_name.get("vllm-router"), by_name.get("LiteLLM")
    own_rps = ours.median("whole_rps")
    return {
        "rps": round(own_rps),
        "rps_over_litellm": lite and round(own_rps / lite.median("whole_rps"), 1),
        "litellm_added_p50_over_ours": lite
        and round(lite.median("added_p50_ms") / ours.median("added_p50_ms"), 1),
        "litellm_p99_over_ours": lite
        and round(lite.median("whole_p99_ms") / ours.median("whole_p99_ms"), 1),
        "share_of_bare_proxy": round(own_rps / bare.median("whole_rps"), 3),
        "cpu_us_per_request": round(ours.median("whole_cpu_us"), 1),
        "cpu_us_per_event": round(ours.median("stream_cpu_us"), 2),
        "added_ms_p50": round(ours.median("added_p50_ms"), 3),
        "added_ms_p99": round(ours.median("added_p99_ms"), 3),
        "rps_over_vllm_router": router and round(own_rps / router.median("whole_rps"), 3),
        "memory_mb": round(ours.median("memory_mb"), 1),
        "rss_growth_mb_1m_requests": None if grown is None else round(grown, 1),
        "byte_identical_share": share,
    }


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each burst")
    parser.add_argument(
        "--paced", type=int, default=150, help="requests at a steady pace in each round"
    )
    parser.add_argument(
        "--growth",
        type=int,
        default=1_000_000,
        help="requests to measure growing memory over; 0: none",
    )
    parser.add_argument(
        "--accounts", type=int, default=100_000, help="accounts to measure memory with; 0: not"
    )
    parser.add_argument("--alone", action="store_true", help="without vllm-router and LiteLLM")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        result = compare(place, options)
        result["rss_mb_100k_accounts"] = (
            round(many_accounts_mb(place, options.accounts), 1) if options.accounts else None
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
