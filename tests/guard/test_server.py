"""What strangers write at a socket: nothing is smuggled, nobody holds a connection for ever."""

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from guard.fakeupstream import always, completion, whole
from guard.running import CHAT, KEY, Client, Running, hello, request, running
from limbeck.guard.server import Limits

OK = always(whole(completion()))
HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {KEY}\r\n"
BODY = hello()
HIDDEN = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


def with_gateway(test: Callable[[Running], Awaitable[None]], **more: Any) -> None:
    async def run() -> None:
        async with running(OK, **more) as run:
            await test(run)

    asyncio.run(run())


async def spoken(port: int, data: bytes, wait_s: float = 2.0) -> bytes:
    """Write bytes and return everything that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), wait_s)
    except ConnectionError:
        return b""
    finally:
        writer.close()


SMUGGLED = {
    "a length and chunks": HEAD + f"content-length: {len(BODY)}\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunks and a length": HEAD + f"transfer-encoding: chunked\r\ncontent-length: {len(BODY)}\r\n\r\n",
    "two lengths": HEAD + f"content-length: 0\r\ncontent-length: {len(BODY)}\r\n\r\n",
    "two equal lengths": HEAD + f"content-length: {len(BODY)}\r\ncontent-length: {len(BODY)}\r\n\r\n",
    "a list of lengths": HEAD + f"content-length: {len(BODY)}, {len(BODY)}\r\n\r\n",
    "a length with a sign": HEAD + f"content-length: +{len(BODY)}\r\n\r\n",
    "a negative length": HEAD + "content-length: -1\r\n\r\n",
    "a length of blanks": HEAD + "content-length:  \r\n\r\n",
    "chunks that are not last": HEAD + "transfer-encoding: chunked, identity\r\n\r\n",
    "another coding": HEAD + "transfer-encoding: xchunked\r\n\r\n",
    "a blank before the colon": HEAD + "transfer-encoding : chunked\r\n\r\n",
    "a folded header": HEAD + f"x: a\r\n b\r\ncontent-length: {len(BODY)}\r\n\r\n",
    "a bare line feed": HEAD.replace("\r\n", "\n") + "transfer-encoding: chunked\n\n",
    "a null byte": HEAD + f"x: a\0b\r\ncontent-length: {len(BODY)}\r\n\r\n",
    "a carriage return inside": HEAD + f"x: a\rtransfer-encoding: chunked\r\ncontent-length: {len(BODY)}\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("head", SMUGGLED.values(), ids=SMUGGLED)
def test_a_request_of_two_lengths_is_refused_and_hides_no_other(head: str) -> None:
    async def test(run: Running) -> None:
        back = await spoken(run.port, head.encode("latin-1") + BODY + HIDDEN)
        assert back.count(b"HTTP/1.1 ") <= 1
        assert back == b"" or back.startswith(b"HTTP/1.1 400 ")
        assert b"unknown_path" not in back
        assert all(asked.body == BODY for asked in run.fake.asked)
        assert len(run.fake.asked) == 0

    with_gateway(test)


CHUNKS = {
    "no number": b"zz\r\nabc\r\n0\r\n\r\n",
    "a number too big": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a number with a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a number in another form": b"0x3\r\nabc\r\n0\r\n\r\n",
    "data longer than said": b"3\r\nabcdef\r\n0\r\n\r\n",
    "a bare line feed": b"3\nabc\n0\n\n",
    "no end of the number": b"3abc0",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_tricks_with_chunks_are_refused(chunks: bytes) -> None:
    async def test(run: Running) -> None:
        back = await spoken(
            run.port, (HEAD + "transfer-encoding: chunked\r\n\r\n").encode() + chunks + HIDDEN
        )
        assert back.count(b"HTTP/1.1 ") <= 1
        assert b"unknown_path" not in back
        assert run.fake.asked == []

    with_gateway(test, limits=Limits(body_s=0.5))


def test_honest_chunks_go_upstream_with_a_length() -> None:
    async def test(run: Running) -> None:
        parts = b"".join(
            b"%x;ext=1\r\n%s\r\n" % (len(p), p) for p in (BODY[:5], BODY[5:6], BODY[6:])
        )
        async with Client(run.port) as client:
            got = await client.raw(
                (HEAD + "transfer-encoding: chunked\r\n\r\n").encode()
                + parts
                + b"0\r\ntrailer: x\r\n\r\n"
            )
        assert got.status == 200
        (asked,) = run.fake.asked
        assert (asked.body, asked.header("content-length"), asked.header("transfer-encoding")) == (
            BODY,
            str(len(BODY)),
            None,
        )

    with_gateway(test)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def test(run: Running) -> None:
        async with Client(run.port) as client:
            reader, writer = await client.streams()
            writer.write(
                request(BODY) + request(b"{") + request(BODY, path="/nowhere") + request(BODY)
            )
            assert [(await client.read(reader)).status for _ in range(4)] == [200, 400, 404, 200]

    with_gateway(test)


@pytest.mark.parametrize(
    "data",
    [
        b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        HEAD.encode()
        + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQ\r\ncontent-length: 0\r\n\r\n",
        HEAD.encode() + b"connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=[
        "connect",
        "h2c",
        "websocket",
        "http2",
        "tls",
        "many headers",
        "long header",
        "long target",
    ],
)
def test_what_this_server_does_not_speak_ends_the_connection(data: bytes) -> None:
    async def test(run: Running) -> None:
        back = await spoken(run.port, data + HIDDEN)
        assert back == b"" or back.split(b" ", 2)[1] in (b"400", b"431")
        assert b"unknown_path" not in back
        assert run.fake.asked == []
        async with Client(run.port) as client:
            assert (await client.post(BODY)).status == 200

    with_gateway(test)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"content_length": "99999999"}, 413),
        ({"content_encoding": "gzip"}, 415),
        ({"content_type": "text/plain"}, 415),
    ],
)
def test_bodies_that_are_too_large_or_of_another_kind_are_refused(
    given: dict[str, str], status: int
) -> None:
    async def test(run: Running) -> None:
        async with Client(run.port) as client:
            assert (await client.post(BODY, **given)).status == status
        assert run.fake.asked == []

    with_gateway(test)


def test_chunks_cannot_get_a_body_past_its_limit() -> None:
    from guard.running import settings

    async def test(run: Running) -> None:
        async with Client(run.port) as client:
            parts = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(64))
            got = await client.raw(
                (HEAD + "transfer-encoding: chunked\r\n\r\n").encode() + parts + b"0\r\n\r\n"
            )
        assert got.status == 413

    with_gateway(test, setting=settings(body_bytes=16_384))


def test_two_keys_are_one_too_many() -> None:
    async def test(run: Running) -> None:
        async with Client(run.port) as client:
            got = await client.raw(
                HEAD.encode()
                + f"authorization: Bearer {KEY}\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
                + BODY
            )
        assert (got.status, got.code) == (400, "two_keys")

    with_gateway(test)


@pytest.mark.parametrize(
    "begun",
    [b"", b"POST /v1", HEAD.encode(), HEAD.encode() + b"content-length: 50\r\n\r\n{"],
    ids=["nothing", "a line", "headers", "a body"],
)
def test_whoever_begins_and_does_not_go_on_is_let_go(begun: bytes) -> None:
    async def test(run: Running) -> None:
        since = time.monotonic()
        await spoken(run.port, begun, wait_s=5)
        assert 0.2 < time.monotonic() - since < 4

    with_gateway(test, limits=Limits(header_s=0.4, body_s=0.4, idle_s=0.4))


def test_one_byte_at_a_time_does_not_stretch_the_headers_time() -> None:
    async def test(run: Running) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
        since = time.monotonic()
        try:
            for byte in HEAD.encode() * 10:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)
                if reader.at_eof() or writer.transport.is_closing():
                    break
        except ConnectionError:
            pass
        assert time.monotonic() - since < 3
        writer.close()

    with_gateway(test, limits=Limits(header_s=0.5))


def test_a_thousand_idle_connections_are_no_hindrance() -> None:
    idle(1_000, most_s=1.0)


@pytest.mark.slow
def test_ten_thousand_idle_connections_are_no_hindrance() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 21_000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        if hard < 20_000:
            pytest.skip(
                f"this machine allows {hard} files a process, and both ends of each connection are here"
            )
        wanted = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        idle((wanted - 1_000) // 2, most_s=2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def idle(count: int, most_s: float) -> None:
    """Hold connections open, some with a request begun, and ask over one more."""

    async def test(run: Running) -> None:
        held = []
        for number in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
            if number % 2:
                writer.write(b"POST /v1")
            held.append((reader, writer))
        async with Client(run.port) as client:
            await client.post(BODY)
            since = time.monotonic()
            for _ in range(20):
                assert (await client.post(BODY)).status == 200
            assert time.monotonic() - since < most_s
        for _, writer in held:
            writer.close()

    with_gateway(test, limits=Limits(header_s=600, idle_s=600))
