"""One plain connection to an upstream: a request out, its reply in, with the pressure passed on."""

import asyncio
from collections import deque
from collections.abc import Callable

import httptools

from limbeck.errors import UpstreamError
from limbeck.guard.upstream.door import Header, whole

HIGH_WATER = 256 * 1024
MAX_HEADERS = 64 * 1024
Free = Callable[["Connection"], None]


class Exchange:
    """One request's reply as it arrives on a connection."""

    __slots__ = (
        "_connection", "_waiter", "chunks", "complete", "deadline", "error", "headers", "size", "started", "status",
    )  # fmt: skip

    def __init__(self, connection: "Connection") -> None:
        self._connection: Connection | None = connection
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        self.headers: list[Header] = []
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.started = False
        self.complete = False
        self.error: str | None = None
        self.deadline = 0.0

    async def begin(self) -> None:
        """Wait for the headers."""
        while not self.started:
            if self.error is not None:
                raise UpstreamError(self.error)
            await self._wait()

    async def chunk(self) -> bytes:
        """Return what has arrived, waiting for it; b"" at the end."""
        while True:
            if self.chunks:
                return self._take()
            if self.complete:
                self.close()
                return b""
            if self.error is not None:
                raise UpstreamError(self.error)
            await self._wait()

    async def body(self, most: int) -> bytes:
        """Return all of it."""
        if self.complete and self.size <= most:  # a short reply is there as soon as its headers are
            reply = self._take()
            self.close()
            return reply
        return await whole(self, most)

    def close(self) -> None:
        """Give the connection back if the reply is complete, else break it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave(self)

    def wake(self) -> None:
        """Let whoever waits look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _take(self) -> bytes:
        chunks = self.chunks
        taken = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.size = 0
        if self._connection is not None:
            self._connection.go_on()
        return taken

    async def _wait(self) -> None:
        assert self._connection is not None  # noqa: S101
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Connection(asyncio.Protocol):
    """A connection that carries one exchange at a time, and is lent again when the exchange is over."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, free: Free, lost: Free, between_s: float
    ) -> None:
        self.loop = loop
        self.used = 0
        self.idle_since = 0.0
        self.reusable = True
        self._free = free
        self._lost = lost
        self._between_s = between_s
        self._exchange: Exchange | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._interim = False
        self._until_eof = False
        self._header_bytes = 0

    @property
    def exchange(self) -> Exchange | None:
        """The exchange that is under way."""
        return self._exchange

    def start(self, request: bytes, deadline: float) -> Exchange:
        """Write a request; its reply arrives in what is returned."""
        assert self._transport is not None  # noqa: S101
        self.used += 1
        exchange = self._exchange = Exchange(self)
        exchange.deadline = deadline
        self._header_bytes = 0
        self._transport.write(request)
        return exchange

    def leave(self, exchange: Exchange) -> None:
        """End an exchange; a connection whose reply was not read to its end is broken."""
        if self._exchange is not exchange:
            return
        self._exchange = None
        if exchange.complete and self.reusable and not self._paused:
            self.idle_since = self.loop.time()
            self._free(self)
        else:
            self.abort()

    def go_on(self) -> None:
        """Read again after a pause."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Break the connection at once."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def fail(self, why: str) -> None:
        """Tell whoever reads that no more will come, and break the connection."""
        exchange = self._exchange
        if exchange is not None and not exchange.complete and exchange.error is None:
            exchange.error = why
            exchange.wake()
        self.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if (
            exchange is None or exchange.complete
        ):  # nobody asked: whatever it is, it is nobody's reply
            self.abort()
            return
        exchange.deadline = self.loop.time() + self._between_s
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.reusable = False
            if not exchange.complete:
                self.fail(f"the upstream's reply is not HTTP/1.1: {error}")
                return
        except httptools.HttpParserUpgrade:
            self.fail("the upstream changed the protocol unasked")
            return
        exchange.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        exchange = self._exchange
        if exchange is not None and not exchange.complete and exchange.error is None:
            if self._until_eof and exchange.started and exc is None:
                exchange.complete = True
            else:
                exchange.error = (
                    "the upstream broke its reply off"
                    if exchange.started
                    else "the upstream hung up"
                )
            exchange.wake()
        self._transport = None
        self._lost(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._exchange is None or self._exchange.complete:
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self._exchange
        if exchange is None or exchange.complete:
            return
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADERS:
            self.fail(f"the upstream's headers must be at most {MAX_HEADERS} bytes long")
            return
        exchange.headers.append((name, value))

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.complete or exchange.error is not None:
            return
        status = self._parser.get_status_code()
        self._interim = 100 <= status < 200
        if self._interim:
            exchange.headers.clear()
            return
        exchange.status = status
        self._until_eof = _until_eof(status, exchange.headers)
        self.reusable = not self._until_eof and self._parser.should_keep_alive()
        exchange.started = True

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if exchange is None or exchange.complete:
            return
        exchange.chunks.append(body)
        exchange.size += len(body)
        if exchange.size > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        elif self._exchange is not None and self._exchange.started:
            self._exchange.complete = True


def _until_eof(status: int, headers: list[Header]) -> bool:
    """Return whether only the connection's end can end this reply."""
    if status in (204, 304):
        return False
    return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)
