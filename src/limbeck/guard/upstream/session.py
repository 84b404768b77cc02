"""An Upstream over TLS or through a proxy, by aiohttp."""

import asyncio
import ssl

import aiohttp

from limbeck.errors import UpstreamError
from limbeck.guard.upstream.door import Address, Header, Patience, whole


class SessionReply:
    """A reply that aiohttp reads."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: list[Header] = list(response.raw_headers)

    async def chunk(self) -> bytes:
        """Return what has arrived, waiting for it; b"" at the end."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.close()
            raise UpstreamError(f"the upstream broke its reply off: {_said(error)}") from None

    async def body(self, most: int) -> bytes:
        """Return all of it."""
        return await whole(self, most)

    def close(self) -> None:
        """Give the connection back if all was read, else break it."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class Session:
    """An Upstream for `https` URLs and for proxies; slower than `Pool`, for what `Pool` does not do."""

    def __init__(
        self,
        address: Address,
        patience: Patience,
        *,
        most: int = 1024,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._origin = f"{address.scheme}://{address.authority}{address.base}"
        self._patience = patience
        self._most = most
        self._proxy = proxy
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, path: str, headers: list[Header], body: bytes
    ) -> SessionReply:
        """Send a request; return when the reply's headers are there."""
        session = self._session or self._open()
        try:
            response = await asyncio.wait_for(
                session.request(
                    method,
                    self._origin + path,
                    headers=[
                        (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
                    ],
                    data=body if body or method == "POST" else None,
                    allow_redirects=False,
                    proxy=self._proxy,
                ),
                self._patience.first_byte_s,
            )
        except TimeoutError:
            raise UpstreamError("the upstream was silent for too long") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(f"the upstream cannot be reached: {_said(error)}") from None
        return SessionReply(response)

    async def close(self) -> None:
        """Break all connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        patience = self._patience
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._most, ssl=self._tls or True),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=patience.connect_s, sock_read=patience.between_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self._session


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
