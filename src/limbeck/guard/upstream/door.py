"""What the gateway needs of a client: send a request, read the reply in pieces, walk away at any time."""

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from limbeck.errors import GuardError, UpstreamError

Header = tuple[bytes, bytes]


class Reply(Protocol):
    """An upstream's reply; whoever holds it reads it to its end or closes it."""

    status: int
    headers: list[Header]

    async def chunk(self) -> bytes:
        """Return what has arrived, waiting for it; b"" at the end. Raise UpstreamError if the end is missing."""
        ...

    async def body(self, most: int) -> bytes:
        """Return all of it. Raise UpstreamError beyond `most` bytes, or if the end is missing."""
        ...

    def close(self) -> None:
        """Give the connection back if all was read, else break it, so that the upstream stops its work."""
        ...


async def whole(reply: Reply, most: int) -> bytes:
    """Return all of a reply, chunk by chunk. Raise UpstreamError beyond `most` bytes, or if the end is missing."""
    parts: list[bytes] = []
    size = 0
    while part := await reply.chunk():
        size += len(part)
        if size > most:
            reply.close()
            raise UpstreamError(f"the upstream's reply must be at most {most} bytes long")
        parts.append(part)
    return b"".join(parts)


class Upstream(Protocol):
    """A way to one model server."""

    async def send(self, method: str, path: str, headers: list[Header], body: bytes) -> Reply:
        """Send a request; return when the reply's headers are there. Raise UpstreamError if they never are."""
        ...

    async def close(self) -> None:
        """Break all connections."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds: for a connection, a free place, the first byte, and the next bytes."""

    connect_s: float = 5.0
    place_s: float = 10.0
    first_byte_s: float = 600.0
    between_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where an upstream listens. `base` is the path before `/v1`, mostly empty."""

    scheme: str
    host: str
    port: int
    base: str
    socket: str | None = None

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"


def read_address(url: str) -> Address:
    """Return the parts of an upstream's URL, which may end in `/v1`. Raise GuardError for any other form."""
    if url.startswith("unix:"):
        return Address("http", "localhost", 80, "", socket=url.removeprefix("unix:"))
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
        parts = parts._replace(scheme="")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise GuardError(f"the upstream must be a URL like http://127.0.0.1:8000, got {url!r}")
    if parts.username or parts.password:
        raise GuardError(
            "the upstream's URL must not hold a password; its key comes from the environment"
        )
    base = parts.path.rstrip("/").removesuffix("/v1")
    return Address(
        parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), base
    )
