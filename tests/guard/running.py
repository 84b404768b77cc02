"""A gateway on the loopback interface in the test's own loop, and a client that reads bytes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn

from guard.fakeupstream import FakeUpstream, Play, upstream
from limbeck.guard.account import Holder
from limbeck.guard.gateway import Gateway
from limbeck.guard.interface.admit import ServedModel
from limbeck.guard.memory import MemoryAccounts, holder_of
from limbeck.guard.record import Facts, decode
from limbeck.guard.server import GuardedProtocol, Limits, sweep_forever
from limbeck.guard.setting import Setting
from limbeck.guard.upstream.door import Patience, read_address
from limbeck.guard.upstream.pool import Pool

KEY = "lk-test"
CHAT = "/v1/chat/completions"
MODELS = {"m": ServedModel("m", "m")}


def hello(**more: Any) -> bytes:
    """Return the smallest chat request."""
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more})


def settings(**more: Any) -> Setting:
    return Setting(models=more.pop("models", MODELS), **more)


@dataclass
class Running:
    """A gateway that runs, with what it stands between."""

    port: int
    app: Gateway
    accounts: MemoryAccounts
    fake: FakeUpstream
    server: uvicorn.Server
    frames: list[bytes] = field(default_factory=list)

    @property
    def facts(self) -> list[Facts]:
        """What was recorded of the requests so far."""
        return [decode(frame[4:])[0] for frame in self.frames]


@asynccontextmanager
async def running(
    play: Play,
    *,
    setting: Setting | None = None,
    holders: dict[str, Holder] | None = None,
    limits: Limits | None = None,
    patience: Patience | None = None,
    most: int = 64,
    **options: Any,
) -> AsyncGenerator[Running]:
    """Run a gateway before a fake upstream."""
    async with upstream(play) as fake:
        pool = Pool(
            read_address(f"http://127.0.0.1:{fake.port}"), patience or Patience(), most=most
        )
        accounts = MemoryAccounts(holders or {KEY: holder_of("a")})
        frames: list[bytes] = []
        app = Gateway(setting or settings(), accounts, pool, report=frames.append, **options)
        async with served(app, limits) as (port, server):
            yield Running(port, app, accounts, fake, server, frames)
        await pool.close()


@asynccontextmanager
async def served(
    app: Gateway, limits: Limits | None = None
) -> AsyncGenerator[tuple[int, uvicorn.Server]]:
    """Serve an application with the protocol that the workers use."""
    protocol = type("Limited", (GuardedProtocol,), {"limits": limits or Limits()})
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=protocol, lifespan="off", log_config=None, access_log=False, proxy_headers=False,
        server_header=False, date_header=False, ws="none",
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())  # pyright: ignore[reportPrivateUsage]
    while not server.started:
        await asyncio.sleep(0.005)
    sweeper = asyncio.create_task(sweep_forever(server))
    try:
        yield server.servers[0].sockets[0].getsockname()[1], server
    finally:
        sweeper.cancel()
        server.should_exit = server.force_exit = True
        await task


@dataclass
class Got:
    """A reply as it came: `whole` tells whether it ended as HTTP says it must."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["error"]["code"]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


class Client:
    """One connection; writes bytes and reads replies, without an opinion of its own about either."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        return self._streams

    async def raw(self, data: bytes) -> Got:
        reader, writer = await self.streams()
        writer.write(data)
        await writer.drain()
        return await self.read(reader)

    async def post(
        self, body: bytes, path: str = CHAT, key: str | None = KEY, **headers: str
    ) -> Got:
        return await self.raw(request(body, path, key, **headers))

    async def get(self, path: str, key: str | None = KEY) -> Got:
        auth = f"authorization: Bearer {key}\r\n" if key else ""
        return await self.raw(f"GET {path} HTTP/1.1\r\nhost: x\r\n{auth}\r\n".encode())

    async def read(self, reader: asyncio.StreamReader) -> Got:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        _, status, reason = first.split(" ", 2)
        headers = [
            (name, value.strip()) for name, _, value in (line.partition(":") for line in lines)
        ]
        got = Got(int(status), reason, headers, b"", True)
        if (got.header("transfer-encoding") or "").lower() == "chunked":
            await self._chunks(reader, got)
        elif (length := got.header("content-length")) is not None:
            await self._length(reader, got, int(length))
        elif got.status != 204:
            got.body = await reader.read()
        if (
            not got.whole
            or (got.header("connection") or "").lower() == "close"
            or (got.header("content-length") is None and got.header("transfer-encoding") is None)
        ):
            self.close()
        return got

    async def _length(self, reader: asyncio.StreamReader, got: Got, length: int) -> None:
        try:
            got.body = await reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            got.body, got.whole = error.partial, False

    async def _chunks(self, reader: asyncio.StreamReader, got: Got) -> None:
        parts: list[bytes] = []
        try:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                parts.append((await reader.readexactly(size + 2))[:-2])
            await reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            got.whole = False
        got.body = b"".join(parts)


def request(body: bytes, path: str = CHAT, key: str | None = KEY, **headers: str) -> bytes:
    """Return a POST request as bytes."""
    given = {"host": "x", "content-type": "application/json", "content-length": str(len(body))}
    if key is not None:
        given["authorization"] = f"Bearer {key}"
    lines = {**given, **{name.replace("_", "-"): value for name, value in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
