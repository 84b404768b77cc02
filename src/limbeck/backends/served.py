"""A model behind an OpenAI-compatible chat endpoint, asked for written answers: `openai:NAME@URL`."""

import importlib.metadata
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from limbeck.chat import Message
from limbeck.errors import MissingDependencyError, ScoringError

PREFIX = "openai:"
KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable that holds the key; without it requests carry none."""
_AT_ONCE = 4
_TRIES = 3
_TIMEOUT_S = 120.0
_PASSING = frozenset({408, 500, 502, 503, 504})


@contextmanager
def asking() -> Generator[tuple[Any, ThreadPoolExecutor]]:
    """Give an HTTP client that says who asks, and a few threads to ask in.

    Raises:
        MissingDependencyError: The package httpx2 is not installed.
    """
    try:
        import httpx2
    except ImportError:
        raise MissingDependencyError(
            "a served model needs the package httpx2: pip install httpx2"
        ) from None
    headers = {"User-Agent": f"limbeck/{importlib.metadata.version('limbeck')}"}
    if key := os.environ.get(KEY_VARIABLE):
        headers["Authorization"] = f"Bearer {key}"
    with (
        httpx2.Client(headers=headers, timeout=_TIMEOUT_S) as client,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        yield client, pool


class ServedModel:
    """Completes chats over HTTP; owns no connection between calls."""

    def __init__(self, spec: str) -> None:
        """Read the spec; nothing is sent yet.

        Raises:
            ScoringError: It has not the form `openai:NAME@URL`.
        """
        name, at, url = spec.removeprefix(PREFIX).rpartition("@")
        if not (at and name and url.startswith(("http://", "https://"))):
            raise ScoringError(
                f"a served model has the form openai:NAME@URL, such as openai:my-model@http://127.0.0.1:8000/v1, got {spec}"
            )
        self.name = name
        self._url = f"{url.rstrip('/')}/chat/completions"

    @property
    def identity(self) -> str:
        """What it is, as far as one can know from outside."""
        return f"{self.name} at {self._url}"

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        max_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """Return the answer to each conversation, the likeliest as far as the server heeds temperature 0.

        Args:
            conversations: Each ends with the user's turn.
            max_tokens: Of an answer at the most.
            temperature: Above 0, answers are drawn.
            seed: Sent along; servers may heed it or not.

        Raises:
            ScoringError: It cannot be reached, refuses, or does not answer as a chat endpoint does.
        """
        with asking() as (client, pool):
            asks = [
                pool.submit(
                    self._ask,
                    client,
                    {
                        "messages": [m.as_dict() for m in turns],
                        "max_tokens": max_tokens,
                        "temperature": temperature,
                        "seed": seed,
                    },
                )
                for turns in conversations
            ]
            try:
                return [ask.result() for ask in asks]
            except ScoringError:
                for ask in asks:
                    ask.cancel()  # a server that says no is not asked on
                raise

    def _ask(self, client: Any, asked: dict[str, Any]) -> str:
        import httpx2

        body = {"model": self.name, **asked}
        why = ""
        for _ in range(_TRIES):
            try:
                reply = client.post(self._url, json=body)
            except httpx2.HTTPError as error:
                why = f"cannot be reached: {type(error).__name__}"
                continue
            if reply.status_code == 200:
                return self._text(reply)
            why = f"answers HTTP {reply.status_code}: {' '.join(reply.text.split())[:80]!r}"
            if reply.status_code not in _PASSING:
                break
        raise ScoringError(f"{self.identity} {why}")

    def _text(self, reply: Any) -> str:
        try:
            text = reply.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise ScoringError(
                f"{self.identity} answers with no chat completion: {' '.join(reply.text.split())[:80]!r}"
            )
        return text
