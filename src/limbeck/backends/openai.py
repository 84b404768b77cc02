"""A connection to an OpenAI-compatible API: sends one request, and says what became of it."""

import importlib.metadata
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from limbeck.address import check_address
from limbeck.backends.ask import Ask
from limbeck.backends.reply import Again, Outcome, Reply, Stop, read_reply
from limbeck.errors import MissingDependencyError, RecipeError, TeacherError

if TYPE_CHECKING:  # the HTTP library loads when a connection is opened
    import httpx2

PREFIX = "openai:"
_HIDDEN = "[key]"
_KEY = re.compile(r"[\x21-\x7e]+")
_CONNECT_S = 15.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is reached, and by what name; holds no secret."""

    base_url: str
    """Such as `https://api.example.com/v1`; requests go to paths below it."""
    model: str
    """Its name at the server."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; without it requests carry none."""
    served_as: str | None = None
    """Name under which the server may answer, where it is not `model`."""
    timeout_s: float = 300.0
    """Patience with one answer, in seconds."""

    def __post_init__(self) -> None:
        """Refuse an address that cannot be, or that holds a secret.

        Raises:
            RecipeError: The address is no plain http or https address.
        """
        check_address(self.base_url)


class Connection:
    """Owns a pool of connections and the key; neither shows in its repr or its errors."""

    def __init__(self, endpoint: Endpoint, environment: Mapping[str, str] | None = None) -> None:
        """Read the key; nothing is sent yet.

        Args:
            endpoint: Whom to ask.
            environment: Where the key is looked up; None takes the process's environment.

        Raises:
            MissingDependencyError: The HTTP library is not installed.
            TeacherError: The key holds what no header can.
        """
        self.endpoint = endpoint
        self._key = (os.environ if environment is None else environment).get(endpoint.key_variable)
        if self._key is not None and not _KEY.fullmatch(self._key):
            raise TeacherError(
                f"the key in {endpoint.key_variable} is empty or holds characters that a key cannot have, such as a "
                "space or the end of a line"
            )
        self._http = self._open()

    def _open(self) -> "httpx2.AsyncClient":
        try:
            import httpx2
        except ImportError:
            raise MissingDependencyError(
                "a model behind an API needs the package httpx2: pip install 'limbeck[api]'"
            ) from None
        headers = {"User-Agent": f"limbeck/{importlib.metadata.version('limbeck')}"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        return httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(self.endpoint.timeout_s, connect=_CONNECT_S),
            limits=httpx2.Limits(max_connections=None),  # whoever asks decides how many at once
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        """Return the connection."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pool."""
        await self._http.aclose()

    async def send(self, ask: Ask) -> Outcome:
        """Send one request once and return what became of it."""
        import httpx2

        where = self.endpoint.base_url
        try:
            response = await self._http.post(f"{where.rstrip('/')}/{ask.path}", json=dict(ask.body))
        except httpx2.ConnectError as error:
            return Again(f"{where} cannot be reached: {self._hide(error)}")
        except httpx2.ConnectTimeout:
            return Again(f"{where} does not take a connection within {_CONNECT_S:.0f} s")
        except httpx2.TimeoutException:
            waited = self.endpoint.timeout_s
            return Again(f"{where} did not answer within timeout_s = {waited:g}", lost=True)
        except httpx2.RequestError as error:
            return Again(f"{where} broke off: {self._hide(error)}", lost=True)
        headers = {name.lower(): value for name, value in response.headers.items()}
        reply = Reply(response.status_code, headers, self._hidden(response.content))
        outcome = read_reply(
            ask, reply, where=where, served_as=self.endpoint.served_as, now=datetime.now(UTC)
        )
        if isinstance(outcome, Stop) and response.status_code == 401 and self._key is None:
            variable = self.endpoint.key_variable
            return Stop(type(outcome.error)(f"{outcome.error}; the variable {variable} is not set"))
        return outcome

    def _hidden(self, body: bytes) -> bytes:
        """Take the key out of what a server says, which sometimes repeats it."""
        key = self._key
        return body if key is None else body.replace(key.encode(), _HIDDEN.encode())

    def _hide(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        return text if self._key is None else text.replace(self._key, _HIDDEN)

    def __repr__(self) -> str:
        """Name the endpoint alone."""
        return f"Connection({self.endpoint!r})"


def model_name(spec: str) -> str | None:
    """Return the server's name of a model that is behind an API, or None for one that is not.

    Raises:
        RecipeError: `openai:` without a name.
    """
    if not spec.startswith(PREFIX):
        return None
    name = spec.removeprefix(PREFIX)
    if not name:
        raise RecipeError(
            "model openai: needs the server's name of the model, as in openai:my-model"
        )
    return name


def host_of(endpoint: Endpoint) -> str:
    """Return where an endpoint lies, for records: the host, with its port where one is given."""
    parts: Any = urlsplit(endpoint.base_url)
    return str(parts.netloc)
