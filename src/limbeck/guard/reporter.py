"""A worker's line to the keeper: frames out in batches, news back; bounded, and honest about what it dropped.

Both directions are frames: a little-endian u32 with the length of the rest, and the rest. A worker's first byte
says what the frame is.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from limbeck.guard.counters import Counters

_LENGTH = struct.Struct("<I")
FLUSH_S = 0.05
COUNT_S = 1.0
RETRY_S = 0.25
DRAIN_S = 5.0
HIGH_WATER = 4 * 1024 * 1024
"""Bytes that may wait in the socket; beyond them frames stay in the queue."""
OBSERVATION, COUNTERS, GAP, SKIPPED, COIN, ASK = b"o", b"c", b"g", b"s", b"t", b"m"
BATCH_BYTES = 1024 * 1024


class Reporter:
    """Sends what was observed to the keeper. `put` never blocks; what has no room is counted as a gap."""

    def __init__(
        self,
        path: Path,
        counters: Counters,
        *,
        queue_bytes: int,
        news: Callable[[bytes], None],
        skipped: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._path = path
        self._counters = counters
        self._most = queue_bytes
        self._news = news
        self._skipped = skipped
        self._queue: deque[bytes] = deque()
        self._coins: deque[bytes] = deque()
        self._bytes = 0
        self._gap = 0
        self._writer: asyncio.StreamWriter | None = None
        self._asked: deque[asyncio.Future[bytes]] = deque()

    @property
    def connected(self) -> bool:
        """Whether the keeper listens."""
        return self._writer is not None

    @property
    def waiting(self) -> int:
        """How many observations are not on their way yet."""
        return len(self._queue)

    def put(self, frame: bytes) -> None:
        """Take one observation, or count it as lost if the queue is full."""
        size = len(frame)
        if self._bytes + size > self._most:
            self._gap += 1
            self._counters.gaps += 1
            return
        self._queue.append(frame)
        self._bytes += size

    def put_coin(self, coin: bytes) -> None:
        """Take a coin; it may not be lost, so there is always room for it."""
        self._coins.append(coin)

    async def run(self) -> None:
        """Keep the line open until cancelled; a keeper that comes back gets what waited."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path))
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            self._writer = writer
            hearing = asyncio.create_task(self._hear(reader))
            try:
                await self._speak(writer, hearing)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                self._writer = None
                hearing.cancel()
                writer.close()
                self._forget_questions()
            await asyncio.sleep(RETRY_S)

    async def drain(self) -> None:
        """Send what waits, and wait a while for a keeper that is just starting; for a worker that ends.

        Raises:
            TimeoutError: The keeper did not take it.
        """
        async with asyncio.timeout(DRAIN_S):
            while (self._queue or self._coins) and self._writer is None:
                await asyncio.sleep(FLUSH_S)
            writer = self._writer
            if writer is None:
                return
            while self._queue or self._coins:
                self._flush(writer)
            self._count(writer)
            writer.transport.set_write_buffer_limits(
                high=0
            )  # so that draining waits for the last byte
            await writer.drain()

    async def metrics(self) -> bytes:
        """Ask the keeper for the metrics of all workers.

        Raises:
            ConnectionError: The keeper is away.
        """
        writer = self._writer
        if writer is None:
            raise ConnectionError("the keeper is away")
        self._count(writer)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        writer.write(_frame(ASK, b""))
        return await asyncio.wait_for(answer, 5.0)

    async def _speak(self, writer: asyncio.StreamWriter, hearing: "asyncio.Task[None]") -> None:
        ticks = 0
        while not hearing.done():
            await asyncio.sleep(FLUSH_S)
            if writer.transport.get_write_buffer_size() < HIGH_WATER:
                self._flush(writer)
            ticks += 1
            if ticks * FLUSH_S >= COUNT_S:
                ticks = 0
                self._count(writer)
        await hearing

    def _flush(self, writer: asyncio.StreamWriter) -> None:
        queue = self._queue
        if self._gap:
            writer.write(_frame(GAP, b"%d" % self._gap))
            self._gap = 0
        while self._coins:
            writer.write(_frame(COIN, self._coins.popleft()))
        batch: list[bytes] = []
        size = 0
        while queue and size < BATCH_BYTES:
            frame = queue.popleft()
            batch.append(frame)
            size += len(frame)
        self._bytes -= size
        if batch:
            writer.write(_frame(OBSERVATION, b"".join(batch)))

    def _count(self, writer: asyncio.StreamWriter) -> None:
        if skipped := self._skipped():
            writer.write(_frame(SKIPPED, orjson.dumps(skipped)))
        writer.write(_frame(COUNTERS, orjson.dumps(self._counters.snapshot())))

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        while True:
            kind, data = await read_frame(reader)
            if kind == ASK:
                if self._asked and not (answer := self._asked.popleft()).done():
                    answer.set_result(data)
            else:
                self._news(data)

    def _forget_questions(self) -> None:
        while self._asked:
            answer = self._asked.popleft()
            if not answer.done():
                answer.set_exception(ConnectionError("the keeper went away"))


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the next frame: its kind, and what it holds."""
    (size,) = _LENGTH.unpack(await reader.readexactly(4))
    data = await reader.readexactly(size)
    return data[:1], data[1:]


def _frame(kind: bytes, data: bytes) -> bytes:
    return _LENGTH.pack(1 + len(data)) + kind + data


def answer_frame(kind: bytes, data: bytes) -> bytes:
    """Return a frame of the keeper."""
    return _frame(kind, data)


def split(batch: bytes) -> list[bytes]:
    """Cut a batch of observations into their frames, without the first length."""
    frames: list[bytes] = []
    place, end = 0, len(batch)
    while place < end:
        (size,) = _LENGTH.unpack_from(batch, place)
        frames.append(batch[place + 4 : place + 4 + size])
        place += 4 + size
    return frames


def as_json(data: bytes) -> Any:
    """Read what a frame holds."""
    return orjson.loads(data)
