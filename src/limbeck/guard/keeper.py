"""The keeper: the one process that hears all workers, weighs, records and decides."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from limbeck.guard import reporter
from limbeck.guard.brain import Brain, Records
from limbeck.guard.logs import log
from limbeck.guard.metrics import Tally, render
from limbeck.guard.record import Facts

FLUSH_S = 0.25
HEAR_OUT_S = 2.0
SLICE_S = 0.01
"""How long the keeper thinks before it looks at its sockets again."""
Trace = Callable[[Facts], None]


class Keeper:
    """Owns the socket that workers report to."""

    def __init__(
        self,
        path: Path,
        brain: Brain,
        records: Records,
        *,
        log_requests: bool = False,
        trace: Trace | None = None,
    ) -> None:
        self.brain = brain
        self.tally = Tally()
        self._path = path
        self._records = records
        self._log_requests = log_requests
        self._trace = trace
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._next = 0
        self._news: Mapping[str, Any] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Hear the workers until `stop` is set; then record what is pending."""
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._hear, str(self._path), limit=1 << 20)
        self._path.chmod(0o600)
        try:
            while not stop.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), FLUSH_S)
                await self.flush()
            await self._hear_out()
        finally:
            server.close()
            for writer in tuple(self._writers.values()):
                writer.close()
            await self.flush()
            self._path.unlink(missing_ok=True)

    async def _hear_out(self) -> None:
        """Take what workers that have ended said last; whoever still lives is not waited for long."""
        until = time.monotonic() + HEAR_OUT_S
        while self._writers and time.monotonic() < until:
            await asyncio.sleep(0.01)

    def metrics(self) -> bytes:
        """Return the exposition for Prometheus."""
        return render(self.tally, self.brain)

    async def flush(self) -> None:
        """Record and act, and tell the workers when a part fails or works again.

        A disk can make a writer wait for many seconds; meanwhile the workers are heard.
        """
        self.brain.take()
        await asyncio.to_thread(self.brain.flush, self._records)
        health = self.brain.health
        news = {"ledger": health.ledger, "sanctions": health.sanctions}
        if news != self._news:
            for part, lack in news.items():
                if lack != self._news.get(part):
                    log("part_away" if lack else "part_back", part=part, why=lack)
            self._news = news
            for writer in self._writers.values():
                self._tell(writer)

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = self._next
        self._next += 1
        self._writers[worker] = writer
        self._tell(writer)
        try:
            while True:
                kind, data = await reporter.read_frame(reader)
                await self._take(worker, kind, data, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.pop(worker, None)
            self.tally.end(worker)
            writer.close()

    async def _take(
        self, worker: int, kind: bytes, data: bytes, writer: asyncio.StreamWriter
    ) -> None:
        if kind == reporter.OBSERVATION:
            await self._observe(data)
        elif kind == reporter.COUNTERS:
            self.tally.update(worker, orjson.loads(data))
        elif kind == reporter.GAP:
            self.brain.miss(int(data))
        elif kind == reporter.COIN:
            self.brain.coin(orjson.loads(data))
        elif kind == reporter.SKIPPED:
            self.brain.skip(orjson.loads(data))
        elif kind == reporter.ASK:
            writer.write(reporter.answer_frame(reporter.ASK, self.metrics()))

    async def _observe(self, batch: bytes) -> None:
        """Take a batch in slices. Nothing more is read of this worker meanwhile: that is the pressure back."""
        until = time.perf_counter() + SLICE_S
        for frame in reporter.split(batch):
            facts = self.brain.observe(frame)
            if facts is not None:
                self._mention(facts)
            if time.perf_counter() > until:
                await asyncio.sleep(0)
                until = time.perf_counter() + SLICE_S

    def _mention(self, facts: Facts) -> None:
        if self._trace is not None:
            self._trace(facts)
        if self._log_requests or facts.status >= 500 or facts.code:
            log(
                "request",
                account=facts.account,
                user=facts.user or None,
                key=facts.key,
                endpoint=facts.endpoint,
                model=facts.model,
                status=facts.status,
                code=facts.code or None,
                stream=facts.stream,
                ms=round(facts.seconds * 1000, 3),
                prompt_tokens=facts.prompt_tokens,
                completion_tokens=facts.completion_tokens,
            )

    def _tell(self, writer: asyncio.StreamWriter) -> None:
        writer.write(reporter.answer_frame(b"n", orjson.dumps(self._news)))
