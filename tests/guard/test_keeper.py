"""The line between workers and keeper: batches, gaps that are counted, a keeper that goes and comes back."""

import asyncio
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from limbeck.errors import LedgerError
from limbeck.guard import reporter as line
from limbeck.guard.brain import Brain
from limbeck.guard.counters import Counters
from limbeck.guard.decision import Action, Decision
from limbeck.guard.keeper import Keeper
from limbeck.guard.observation import Observation
from limbeck.guard.record import Facts, encode
from limbeck.guard.reporter import Reporter

FACTS = Facts(
    1.7e9, "a", "o", "", "k", "/v1/chat/completions", "m", 200, False, 0.1, 9, 3, None, "", "", "", None, "", (), False, ""
)  # fmt: skip
FRAME = encode(FACTS, b'{"model":"m","prompt":"x"}')


class Calm:
    """A watch that finds nothing."""

    def observe(self, observation: Observation) -> Decision:
        return Decision(observation.ts, observation.account, Action.ALLOW)


class Disk:
    """A ledger on a disk that may be full, or make a writer wait."""

    full = False
    reading = None

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()

    def append(self, entries: Sequence[Any]) -> Any:
        self.free.wait(5)
        if self.full:
            raise LedgerError("the disk is full")
        return SimpleNamespace(first=0)


class Line:
    """Both ends."""

    def __init__(self, place: Path, queue_bytes: int = 1 << 20) -> None:
        self.path = place / "s"
        self.disk = Disk()
        self.brain = Brain(Calm(), lambda d, e: None, secret=b"s" * 32)
        self.counters = Counters()
        self.news: list[Any] = []
        self.skipped: dict[str, int] = {}
        self.reporter = Reporter(
            self.path, self.counters, queue_bytes=queue_bytes, news=lambda data: self.news.append(orjson.loads(data)), skipped=self._skipped
        )  # fmt: skip
        self.talking = asyncio.create_task(self.reporter.run())
        self.begin()

    def begin(self) -> None:
        """Start a keeper."""
        self.stop = asyncio.Event()
        self.keeper = Keeper(self.path, self.brain, self.disk)
        self.keeping = asyncio.create_task(self.keeper.run(self.stop))

    async def end(self) -> None:
        """Stop the keeper."""
        self.stop.set()
        await self.keeping

    def _skipped(self) -> dict[str, int]:
        counts, self.skipped = self.skipped, {}
        return counts


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "FLUSH_S", 0.005)
    monkeypatch.setattr(line, "COUNT_S", 0.02)
    monkeypatch.setattr(line, "RETRY_S", 0.02)
    monkeypatch.setattr("limbeck.guard.keeper.FLUSH_S", 0.02)
    monkeypatch.setattr("limbeck.guard.keeper.HEAR_OUT_S", 0.1)


def played(test: Callable[[Line], Any], queue_bytes: int = 1 << 20) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as place:
            both = Line(Path(place), queue_bytes)
            try:
                async with asyncio.timeout(10):
                    await test(both)
            finally:
                both.talking.cancel()
                await both.end()

    asyncio.run(run())


def test_what_is_put_in_arrives_once() -> None:
    async def test(both: Line) -> None:
        for _ in range(1_000):
            both.reporter.put(FRAME)
        await until(lambda: both.brain.observed == 1_000)
        await asyncio.sleep(0.05)
        assert both.brain.observed == 1_000

    played(test)


def test_what_has_no_room_is_a_gap_that_the_keeper_hears_of() -> None:
    async def test(both: Line) -> None:
        for _ in range(100):
            both.reporter.put(FRAME)
        await until(lambda: both.brain.gaps > 0)
        assert both.brain.observed + both.brain.gaps == 100
        assert both.counters.gaps == both.brain.gaps

    played(test, queue_bytes=10 * len(FRAME))


def test_a_sample_is_heard_of() -> None:
    async def test(both: Line) -> None:
        both.skipped = {"a": 3}
        await until(lambda: both.brain.sampled_out == 3)

    played(test)


def test_a_keeper_that_comes_back_gets_what_waited() -> None:
    async def test(both: Line) -> None:
        await until(lambda: both.reporter.connected)
        await both.end()
        await until(lambda: not both.reporter.connected)
        for _ in range(50):
            both.reporter.put(FRAME)
        both.begin()
        await until(lambda: both.brain.observed == 50)

    played(test)


def test_a_worker_that_ends_waits_for_a_keeper_that_starts() -> None:
    async def test(both: Line) -> None:
        await both.end()
        both.reporter.put(FRAME)
        draining = asyncio.create_task(both.reporter.drain())
        await asyncio.sleep(0.05)
        both.begin()
        await draining
        await until(lambda: both.brain.observed == 1)

    played(test)


def test_workers_hear_that_the_ledger_is_away_and_back() -> None:
    async def test(both: Line) -> None:
        await until(lambda: both.reporter.connected)
        both.disk.full = True
        both.reporter.put(FRAME)
        await until(lambda: bool(both.news) and both.news[-1]["ledger"] == "the disk is full")
        both.disk.full = False
        await until(lambda: both.news[-1]["ledger"] is None)

    played(test)


def test_a_disk_that_makes_the_keeper_wait_stops_neither_hearing_nor_metrics() -> None:
    async def test(both: Line) -> None:
        both.disk.free.clear()
        try:
            for count in range(1, 4):
                both.reporter.put(FRAME)
                await until(lambda count=count: both.brain.observed == count)
                assert b"limbeck_observed_total %d.0" % count in await both.reporter.metrics()
            assert (both.brain.recorded, both.brain.pending) == (0, 3)
        finally:
            both.disk.free.set()
        await until(lambda: both.brain.pending == 0)
        assert both.brain.recorded > 0

    played(test)


def test_metrics_sum_up_workers_that_live_and_that_have_ended() -> None:
    async def test(both: Line) -> None:
        both.counters.served("/v1/chat/completions", 200, 0.02)
        await until(lambda: both.reporter.connected)
        text = (await both.reporter.metrics()).decode()
        assert 'limbeck_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0' in text
        assert 'limbeck_seconds_bucket{le="0.025"} 1.0' in text
        assert "limbeck_workers 1.0" in text
        both.talking.cancel()
        await until(lambda: both.keeper.tally.workers == 0)
        assert b'status="200"} 1.0' in both.keeper.metrics()

    played(test)


def test_a_keeper_that_is_away_gives_no_metrics() -> None:
    async def test(both: Line) -> None:
        await both.end()
        await until(lambda: not both.reporter.connected)
        with pytest.raises(ConnectionError):
            await both.reporter.metrics()

    played(test)
