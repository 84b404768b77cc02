"""Plain connections to one upstream, kept open and lent."""

import asyncio
from collections import deque

from limbeck.errors import UpstreamError
from limbeck.guard.upstream.connection import Connection, Exchange
from limbeck.guard.upstream.door import Address, Header, Patience

SWEEP_S = 0.25
JOINED = 64 * 1024
_ONCE = frozenset({"POST"})


class Pool:
    """An Upstream over plain HTTP/1.1: at most `most` connections, the ones used last are lent first."""

    def __init__(
        self, address: Address, patience: Patience, *, most: int = 1024, keep_s: float = 55.0
    ) -> None:
        self._address = address
        self._patience = patience
        self._most = most
        self._keep_s = keep_s
        self._host = b" HTTP/1.1\r\nhost: " + address.authority.encode() + b"\r\n"
        self._base = address.base.encode()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, method: str, path: str, headers: list[Header], body: bytes) -> Exchange:
        """Send a request; return when the reply's headers are there."""
        loop = self._loop or self._begin()
        head = [method.encode(), b" ", self._base, path.encode(), self._host]
        for name, value in headers:
            head += (name, b": ", value, b"\r\n")
        if body or method in _ONCE:
            head.append(b"content-length: %d\r\n\r\n" % len(body))
        else:
            head.append(b"\r\n")
        head.append(body)
        request = b"".join(head)
        while True:
            connection = self._idle.pop() if self._idle else await self._connect()
            if not connection.reusable:
                continue
            exchange = connection.start(request, loop.time() + self._patience.first_byte_s)
            try:
                if not exchange.started:
                    await exchange.begin()
            except UpstreamError:
                # A kept connection may be closed just when it is used; nothing of a reply came, so ask again.
                if connection.used > 1 and exchange.error == "the upstream hung up":
                    continue
                exchange.close()
                raise
            except BaseException:
                exchange.close()
                raise
            return exchange

    async def close(self) -> None:
        """Break all connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._all):
            connection.abort()
        self._idle.clear()

    def _begin(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        return self._loop

    async def _connect(self) -> Connection:
        while len(self._all) + self._opening >= self._most:
            await self._place()
            if self._idle:
                return self._idle.pop()
        self._opening += 1
        try:
            return await asyncio.wait_for(self._open(), self._patience.connect_s)
        except TimeoutError:
            raise UpstreamError(
                f"the upstream took no connection within {self._patience.connect_s:g} s"
            ) from None
        except OSError as error:
            raise UpstreamError(
                f"the upstream cannot be reached: {error.strerror or error}"
            ) from None
        finally:
            self._opening -= 1

    async def _open(self) -> Connection:
        loop = self._loop or self._begin()
        address = self._address

        def make() -> Connection:
            return Connection(loop, self._free, self._lost, self._patience.between_s)

        if address.socket is not None:
            _, connection = await loop.create_unix_connection(make, address.socket)
        else:
            _, connection = await loop.create_connection(make, address.host, address.port)
        self._all.add(connection)
        return connection

    async def _place(self) -> None:
        """Wait until a connection is free or one more may be opened."""
        assert self._loop is not None  # noqa: S101
        turn = self._loop.create_future()
        self._queue.append(turn)
        try:
            await asyncio.wait_for(turn, self._patience.place_s)
        except TimeoutError:
            raise UpstreamError(
                f"all {self._most} connections to the upstream were busy for {self._patience.place_s:g} s"
            ) from None

    def _free(self, connection: Connection) -> None:
        self._idle.append(connection)
        self._next()

    def _lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._next()

    def _next(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _sweep(self) -> None:
        """End what waited too long; one timer for all, since one a request would cost more than the request."""
        assert self._loop is not None  # noqa: S101
        now = self._loop.time()
        for connection in tuple(self._all):
            exchange = connection.exchange
            if exchange is None:
                if connection.idle_since and now - connection.idle_since > self._keep_s:
                    connection.abort()
            elif exchange.deadline < now and not exchange.chunks and not exchange.complete:
                connection.fail("the upstream was silent for too long")
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
