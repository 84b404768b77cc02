"""Both clients read an upstream alike: the own one for plain HTTP, and aiohttp for TLS and proxies."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from guard.fakeupstream import (
    HANG_UP,
    Asked,
    FakeUpstream,
    Pieces,
    always,
    completion,
    drawn,
    upstream,
    whole,
)
from guard.running import hello
from limbeck.errors import UpstreamError
from limbeck.guard.upstream.door import Patience, Upstream, read_address
from limbeck.guard.upstream.pool import Pool
from limbeck.guard.upstream.session import Session

PATIENCE = Patience(connect_s=2, place_s=1, first_byte_s=0.5, between_s=0.5)
HEADERS = [(b"content-type", b"application/json")]
CLIENTS = {"own": Pool, "aiohttp": Session}
clients = pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)
Make = Callable[..., Upstream]


def asking(
    make: Make, play: object, ask: Callable[[Upstream, FakeUpstream], Awaitable[None]], **more: int
) -> None:
    async def run() -> None:
        async with upstream(play) as fake:  # pyright: ignore[reportArgumentType]
            client = make(read_address(f"http://127.0.0.1:{fake.port}"), PATIENCE, **more)
            try:
                await ask(client, fake)
            finally:
                await client.close()

    asyncio.run(run())


def test_both_read_every_reply_alike() -> None:
    async def run() -> None:
        async with upstream(drawn) as fake:
            address = read_address(f"http://127.0.0.1:{fake.port}")
            both: list[Upstream] = [Pool(address, PATIENCE), Session(address, PATIENCE)]
            for seed in range(150):
                body = hello(user=str(seed), stream=seed % 2 == 0)
                read = []
                for client in both:
                    reply = await client.send("POST", "/v1/chat/completions", HEADERS, body)
                    headers = [(name.lower(), value) for name, value in reply.headers]
                    read.append((reply.status, headers, await reply.body(1 << 24)))
                    reply.close()
                assert read[0] == read[1], seed
            for client in both:
                await client.close()

    asyncio.run(run())


@clients
def test_a_reply_that_breaks_off_is_an_error_and_never_a_short_answer(make: Make) -> None:
    async def ask(client: Upstream, fake: FakeUpstream) -> None:
        reply = await client.send("POST", "/", HEADERS, b"{}")
        with pytest.raises(UpstreamError):
            await reply.body(1 << 20)

    asking(make, always(whole(completion())[:-10], HANG_UP), ask)


@clients
def test_more_than_the_most_is_an_error(make: Make) -> None:
    async def ask(client: Upstream, fake: FakeUpstream) -> None:
        reply = await client.send("POST", "/", HEADERS, b"{}")
        with pytest.raises(UpstreamError, match="at most 10 bytes"):
            await reply.body(10)

    asking(make, always(whole(completion())), ask)


@clients
def test_silence_is_an_error_after_its_time(make: Make) -> None:
    async def play(asked: Asked) -> Pieces:
        await asyncio.sleep(3)
        yield HANG_UP

    async def ask(client: Upstream, fake: FakeUpstream) -> None:
        with pytest.raises(UpstreamError, match="silent"):
            await client.send("POST", "/", HEADERS, b"{}")

    asking(make, play, ask)


@clients
def test_nobody_there_is_an_error(make: Make) -> None:
    async def run() -> None:
        client = make(read_address("http://127.0.0.1:9"), PATIENCE)
        with pytest.raises(UpstreamError, match="cannot be reached"):
            await client.send("POST", "/", HEADERS, b"{}")
        await client.close()

    asyncio.run(run())


@clients
def test_connections_are_kept_and_lent_again(make: Make) -> None:
    async def ask(client: Upstream, fake: FakeUpstream) -> None:
        for _ in range(20):
            reply = await client.send("POST", "/", HEADERS, b"{}")
            await reply.body(1 << 20)
            reply.close()
        assert fake.connections == 1

    asking(make, always(whole(completion())), ask)


def test_a_turn_that_never_comes_is_an_error() -> None:
    gate = asyncio.Event()

    async def play(asked: Asked) -> Pieces:
        await gate.wait()
        yield whole(completion())

    async def ask(client: Upstream, fake: FakeUpstream) -> None:
        first = asyncio.create_task(client.send("POST", "/", HEADERS, b"{}"))
        await asyncio.sleep(0.05)
        client._patience = Patience(place_s=0.1)  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(UpstreamError, match="were busy"):
            await client.send("POST", "/", HEADERS, b"{}")
        first.cancel()

    asking(Pool, play, ask, most=1)


def test_a_unix_socket_is_an_upstream_too() -> None:
    import tempfile
    from pathlib import Path

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(whole(completion()))
        await writer.drain()
        writer.close()

    async def run() -> None:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "model.sock"
            server = await asyncio.start_unix_server(serve, str(path))
            client = Pool(read_address(f"unix:{path}"), PATIENCE)
            reply = await client.send("GET", "/v1/models", [], b"")
            assert await reply.body(1 << 20) == completion()
            reply.close()
            await client.close()
            server.close()

    asyncio.run(run())
