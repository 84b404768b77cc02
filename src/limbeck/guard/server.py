"""uvicorn's HTTP protocol with the limits of a server that strangers talk to."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import Server

from limbeck.guard.refusal import Refusal

Header = tuple[bytes, bytes]
SWEEP_S = 0.5
JOINED = 64 * 1024
CYCLE, WHOLE = "limbeck.cycle", "limbeck.whole"
"""Keys of the scope: a short way to a request's body and for a reply that is there at once. An application that finds
them may use them in place of `receive` and `send`; another server has none, and everything works without."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may take. Sizes in bytes, times in seconds."""

    header_bytes: int = 32 * 1024
    header_count: int = 100
    header_s: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_s: float = 60.0
    """Longest silence while a body is on its way."""
    write_s: float = 60.0
    """Longest time that a client may take nothing of what is ready for it."""
    idle_s: float = 75.0
    connections: int = 20_000


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Its task is cancelled when the client goes, so that the upstream's work ends too."""

    limits = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waits_since: float | None = None
        """Since when the client owes us something: headers, a body, or room for what we write."""
        self.patience_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._header_bytes = 0
        self._reading = False
        self._over = False
        """Whether the connection has had its last answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # pyright: ignore[reportArgumentType]
        self._wait(self.limits.idle_s)
        if len(self.connections) > self.limits.connections:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        cycle, task = self.cycle, self._task
        super().connection_lost(exc)
        if task is not None and not cycle.response_complete:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._reading:
            self._wait(self.limits.body_s)
        if self._over:
            return
        try:
            self.parser.feed_data(data)  # pyright: ignore[reportOptionalMemberAccess]
        except httptools.HttpParserError:
            if not self._over:
                self.send_400_response("the request is not well-formed HTTP, as RFC 9112 has it")
        except httptools.HttpParserUpgrade:
            pass  # answered in on_headers_complete
        else:
            if self._header_bytes > self.limits.header_bytes:
                self._is_too_large()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self._wait(self.limits.header_s)

    def on_url(self, url: bytes) -> None:
        self._header_bytes += len(url)
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._over or self._is_too_large():
            return
        if self.parser.should_upgrade():  # pyright: ignore[reportOptionalMemberAccess]
            self.send_400_response("this server changes to no other protocol")
            return
        self._reading = True
        self.patience_s = self.limits.body_s
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._over:
            return
        self._reading = False
        self.waits_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._wait(self.limits.idle_s)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait(self.limits.write_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.waits_since = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not a request of ours, and close: where the next one would begin is not known."""
        self._answer(Refusal(400, "invalid_request", msg))

    def _answer(self, refusal: Refusal) -> None:
        self._over = True
        body = refusal.body
        head = [STATUS_LINE[refusal.status]]
        for name, value in refusal.headers:
            head += (name, b": ", value, b"\r\n")
        head.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        # A reply that is under way must not have another one written into it.
        if self._task is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(b"".join([*head, body]))
        self.transport.close()

    def whole(
        self, cycle: RequestResponseCycle, status: int, headers: list[Header], body: bytes
    ) -> None:
        """Write a whole reply at once. Its headers come from a parser or from here, and hold its length."""
        if cycle.disconnected:
            return
        head = [STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            head += (name, b": ", value, b"\r\n")
        head.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        if len(body) < JOINED:
            head.append(body)
            self.transport.write(b"".join(head))
        else:
            self.transport.write(b"".join(head))
            self.transport.write(body)
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        scope[CYCLE], scope[WHOLE] = cycle, self.whole
        task = self._task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _wait(self, patience_s: float) -> None:
        self.waits_since = self.loop.time()
        self.patience_s = patience_s

    def _is_too_large(self) -> bool:
        """Answer headers that are too large; looked at for every piece that arrives, and before anything is done."""
        limits = self.limits
        if self._header_bytes <= limits.header_bytes and len(self.headers) <= limits.header_count:
            return False
        if not self._over:
            said = f"headers must be at most {limits.header_count} lines and {limits.header_bytes} bytes"
            self._answer(Refusal(431, "headers_too_large", said))
        return True


def sweep(server: Server) -> int:
    """Break connections whose clients owe something for too long; return how many."""
    now = asyncio.get_running_loop().time()
    broken = 0
    for connection in tuple(server.server_state.connections):
        if not isinstance(connection, GuardedProtocol) or connection.waits_since is None:
            continue
        if now - connection.waits_since > connection.patience_s:
            connection.transport.abort()
            broken += 1
    return broken


async def sweep_forever(server: Server) -> None:
    """Sweep twice a second; one timer for all connections instead of one each."""
    while True:
        await asyncio.sleep(SWEEP_S)
        sweep(server)
