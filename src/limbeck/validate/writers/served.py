"""A model behind an OpenAI-compatible endpoint that streams its answer."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import httpx2

from limbeck.errors import ScoringError
from limbeck.validate.address import chat_address, is_loopback
from limbeck.validate.respond import Asked
from limbeck.validate.timing import Usage

_TIMEOUT_S = 120.0
_DONE = "[DONE]"
_SHOWN = 120


class ServedWriter:
    """Owns the connection to one endpoint; use it as a context."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        max_new_tokens: int,
        key: str | None = None,
        timeout: float = _TIMEOUT_S,
    ) -> None:
        """Name the endpoint; nothing is sent yet.

        Args:
            name: The model that is asked for.
            url: Base URL, as `limbeck.validate.address.chat_address` takes it.
            max_new_tokens: Tokens of an answer at the most.
            key: Bearer token.
            timeout: Seconds that the endpoint may be silent.

        Raises:
            ScoringError: The URL is none, or the key would travel in the clear to another machine.
        """
        try:
            self._address = chat_address(url)
        except ValueError as error:
            raise ScoringError(f"{name}: {error}") from None
        if key is not None and url.startswith("http:") and not is_loopback(url):
            raise ScoringError(f"{name} has a key and {url} is not encrypted; use https")
        self.name = name
        self._max_new_tokens = max_new_tokens
        self._client = httpx2.Client(
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=timeout,
            trust_env=not is_loopback(url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def write(self, asked: Asked, piece: Callable[[], None]) -> Usage:
        """Let the endpoint write one answer; `piece` is called for every chunk that carries text.

        Tokens are those that the endpoint counts; where it counts none, every chunk is taken for one token and the
        prompt for none.

        Raises:
            ScoringError: The endpoint cannot be reached, refuses, or sends no stream of chat chunks.
        """
        chunks, usage = 0, None
        try:
            for event in self._events(asked):
                if _has_text(event):
                    piece()
                    chunks += 1
                usage = _usage(event) or usage
        except httpx2.TimeoutException:
            raise ScoringError(f"{self.name} was silent for too long at {self._address}") from None
        except (httpx2.HTTPError, httpx2.SSEError, httpx2.InvalidURL, ValueError) as error:
            raise ScoringError(
                f"{self.name} cannot be timed at {self._address}: {error}"
            ) from error
        return usage or Usage(0, chunks)

    def _events(self, asked: Asked) -> Iterator[dict[str, Any]]:
        body = {
            "model": self.name,
            "messages": [message.as_dict() for message in asked.messages()],
            "max_tokens": self._max_new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with self._client.stream("POST", self._address, json=body) as response:
            if response.status_code != 200:
                response.read()
                raise ValueError(f"HTTP {response.status_code}: {response.text[:_SHOWN]!r}")
            for event in httpx2.EventSource(response):
                if event.data == _DONE:
                    return
                chunk = event.json()
                if isinstance(chunk, dict):
                    yield chunk


def _has_text(chunk: dict[str, Any]) -> bool:
    with suppress(KeyError, IndexError, TypeError):
        delta = chunk["choices"][0]["delta"]
        return bool(delta.get("content") or delta.get("reasoning_content"))
    return False


def _usage(chunk: dict[str, Any]) -> Usage | None:
    with suppress(KeyError, TypeError, ValueError):
        counts = chunk["usage"]
        return Usage(int(counts["prompt_tokens"]), int(counts["completion_tokens"]))
    return None
