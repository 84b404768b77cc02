"""A model server made of bytes: what it writes, how it cuts it and when it hangs up is up to the test.

`replies(seed)` draws a reply with everything that real servers do: JSON and event streams, chunked, with a
length or up to the end of the connection, odd headers, errors of many kinds.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the upstream got it."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return orjson.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


Pieces = AsyncIterator[bytes]
Play = Callable[[Asked], Pieces]
"""Writes a reply, piece by piece; a piece `HANG_UP` closes the connection there."""
HANG_UP = b""


@dataclass
class FakeUpstream:
    """What was asked so far, and how many replies were broken off by the other side."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    left: int = 0
    connections: int = 0


@asynccontextmanager
async def upstream(play: Play) -> AsyncGenerator[FakeUpstream]:
    """Serve on a free port of the loopback interface."""
    fake = FakeUpstream()
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        fake.connections += 1
        try:
            while (asked := await _read(reader)) is not None:
                fake.asked.append(asked)
                if not await _write(fake, play(asked), reader, writer):
                    break
        except ConnectionError:
            fake.left += 1
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 24)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return Asked(method, path, headers, await reader.readexactly(length))


async def _write(
    fake: FakeUpstream, pieces: Pieces, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Write the pieces; return whether the connection goes on."""
    async for piece in pieces:
        if piece == HANG_UP:
            return False
        if reader.at_eof() or writer.transport.is_closing():
            fake.left += 1
            return False
        writer.write(piece)
        await writer.drain()
    return True


def always(*pieces: bytes, pause: Callable[[], Awaitable[None]] | None = None) -> Play:
    """Write the same pieces to everyone."""

    async def play(asked: Asked) -> Pieces:
        for piece in pieces:
            yield piece
            await (pause() if pause else asyncio.sleep(0))

    return play


def whole(
    body: bytes, status: str = "200 OK", headers: str = "content-type: application/json\r\n"
) -> bytes:
    """Return a reply with a length."""
    return (
        f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode("latin-1")
        + body
    )


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunked(piece: bytes) -> bytes:
    """Return a chunk of a chunked body."""
    return b"%x\r\n" % len(piece) + piece + b"\r\n"


def completion(text: str = "Hello.", **more: Any) -> bytes:
    """Return a chat completion's body."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    return orjson.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
            **more,
        }
    )


def delta(text: str, index: int = 0, **more: Any) -> bytes:
    """Return one event of a chat completion's stream."""
    choice = {
        "index": index,
        "delta": {"content": text},
        "logprobs": None,
        "finish_reason": None,
        **more,
    }
    return (
        b"data: "
        + orjson.dumps(
            {
                "id": "c",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "choices": [choice],
            }
        )
        + b"\n\n"
    )


async def drawn(asked: Asked) -> Pieces:
    """Write the reply that the request's `user` is the seed of."""
    rng = random.Random(asked.json["user"])  # noqa: S311 (bytes to compare, no secret)
    for piece in _cut(rng, *_draw(rng, stream=bool(asked.json.get("stream")))):
        yield piece
        if rng.random() < 0.2:
            await asyncio.sleep(0)


WORDS = ("a", " <b", "é", " 1 < 2", "[x]", "\n", "日本", " think", "\\", '"', "</p>", " end|", "😀")
ODD = (
    "x-ratelimit-remaining-tokens: 149984", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2", "X-Request-ID: req_123",
    "OpenAI-Processing-Ms: 17", "x-empty:", "Cache-Control: no-cache", "server: uvicorn", "date: Tue, 24 Nov 2026 12:00:00 GMT",
    "Strict-Transport-Security: max-age=1", "x-latin: caf\xe9", "alt-svc: h3", "Vary: Accept",
)  # fmt: skip
ERRORS = {400: "Bad Request", 404: "Not Found", 422: "Unprocessable", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable", 529: "Overloaded"}  # fmt: skip


def _draw(rng: random.Random, *, stream: bool) -> tuple[str, list[str], bytes]:
    headers = rng.sample(ODD, rng.randint(0, 4))
    if rng.random() < 0.15:
        status = rng.choice(list(ERRORS))
        body = rng.choice(
            [
                orjson.dumps(
                    {"error": {"message": "no", "type": "t", "param": None, "code": str(status)}}
                ),
                orjson.dumps(
                    {"object": "error", "message": "m", "type": "t", "param": None, "code": status}
                ),
                b'{ "detail" : "Not Found" }',
                b"upstream said no",
                b"",
            ]
        )
        kind = "application/json" if body.startswith(b"{") else "text/plain"
        return f"{status} {ERRORS[status]}", [*headers, f"Content-Type: {kind}"], body
    text = "".join(rng.choices(WORDS, k=rng.randint(0, 30)))
    if not stream:
        body = completion(text, system_fingerprint="fp", service_tier=None)
        if rng.random() < 0.3:
            body = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)
        return "200 OK", [*headers, "Content-Type: application/json"], body
    end = rng.choice(["\n\n", "\r\n\r\n"])
    events = [delta(word).decode() for word in rng.choices(WORDS, k=rng.randint(0, 30))]
    if rng.random() < 0.3:
        events.insert(rng.randint(0, len(events)), ": keep-alive\n\n")
    body = "".join(event.replace("\n\n", end) for event in [*events, "data: [DONE]\n\n"]).encode()
    return "200 OK", [*headers, "content-type: text/event-stream; charset=utf-8"], body


def _cut(rng: random.Random, status: str, headers: list[str], body: bytes) -> list[bytes]:
    """Frame a body in one of HTTP's ways, and cut the bytes at random places."""
    way = rng.choice(["length", "chunked", "end"])
    lines = [f"HTTP/1.1 {status}", *headers]
    if way == "length":
        lines.append(f"Content-Length: {len(body)}")
    elif way == "chunked":
        lines.append("Transfer-Encoding: chunked")
        parts = _pieces(rng, body, rng.randint(0, 12))
        body = b"".join(chunked(part) for part in parts if part) + END
    else:
        lines.append("Connection: close")
    wire = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    pieces = [piece for piece in _pieces(rng, wire, rng.choice([0, 0, 3, 20])) if piece]
    return [*pieces, HANG_UP] if way == "end" else pieces


def _pieces(rng: random.Random, data: bytes, cuts: int) -> list[bytes]:
    edges = [0, *sorted(rng.randint(0, len(data)) for _ in range(cuts)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]
