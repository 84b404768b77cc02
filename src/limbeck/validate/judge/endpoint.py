"""A judge behind an OpenAI-compatible chat endpoint: asked concurrently, retried, cached, given up when it is gone.

A judge that fails is a finding, not an exception: every failure comes back as a sentence in the reply.
"""

import asyncio
import importlib.metadata
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import httpx2
import numpy as np

from limbeck.validate.address import is_loopback
from limbeck.validate.judge.ballot import Ballot
from limbeck.validate.judge.cache import ReplyCache, request_key
from limbeck.validate.judge.spec import JudgeSpec

GIVE_UP_AFTER = 4
"""Requests in a row that fail, retries included, before a judge is held to be gone."""

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_REFUSED = frozenset({401, 402, 403, 404, 405, 410})
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_SHOWN = 80
_RENAMED = {"max_tokens": "max_completion_tokens"}
_OPTIONAL = ("max_tokens", "temperature", "seed")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from a judge: a text, or why there is none."""

    text: str | None
    failure: str | None = None
    cached: bool = False
    model: str | None = None
    """What the endpoint says it is."""


class Judge(Protocol):
    """Whoever compares two answers."""

    @property
    def name(self) -> str: ...

    async def ask(self, ballot: Ballot) -> Reply:
        """Return the reply to one ballot; never raises for what the judge does wrong."""
        ...


@dataclass(frozen=True, slots=True)
class _Trouble:
    why: str
    passing: bool
    """It may pass by itself."""
    final: bool = False
    """The provider says no, and asking on would be to ignore it."""
    wait: float | None = None
    """Seconds that the server asks to wait."""


class Endpoint:
    """Owns the connections to one judge; use it as an async context."""

    def __init__(
        self,
        spec: JudgeSpec,
        cache: ReplyCache,
        *,
        seed: int,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = spec.name
        self._spec = spec
        self._cache = cache
        self._jitter = np.random.default_rng(seed)
        self._slots = asyncio.Semaphore(spec.concurrency)
        self._renamed: dict[str, str | None] = {}
        self._failures = 0
        self._answered = False
        self._gone: str | None = None
        headers = {"User-Agent": f"limbeck/{importlib.metadata.version('limbeck')}"}
        if spec.key is not None:
            headers["Authorization"] = f"Bearer {spec.key}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=spec.timeout,
            transport=transport,
            trust_env=not is_loopback(spec.url),  # a proxy has no business on loopback
            limits=httpx2.Limits(max_connections=spec.concurrency),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def ask(self, ballot: Ballot) -> Reply:
        """Return the judge's reply to a ballot, from the cache where it was asked before."""
        key = request_key(self._spec.url, self._request(ballot))
        kept = self._cache.get(key)
        if kept is not None:
            return Reply(kept, cached=True)
        async with self._slots:
            reply = await self._persist(ballot)
        if reply.text is not None:
            self._cache.put(key, reply.text)
        return reply

    async def _persist(self, ballot: Ballot) -> Reply:
        attempt = 0
        while self._gone is None:
            found = await self._post(ballot)
            if isinstance(found, Reply):
                self._failures, self._answered = 0, True
                return found
            if not found.passing or attempt == self._spec.retries:
                return self._fail(found)
            await asyncio.sleep(self._pause(attempt, found.wait))
            attempt += 1
        return Reply(None, self._gone)

    def _fail(self, trouble: _Trouble) -> Reply:
        self._failures += 1
        if trouble.final:
            self._gone = trouble.why
        elif self._failures >= GIVE_UP_AFTER:
            self._gone = f"{trouble.why} ({self._failures} requests in a row; given up)"
        return Reply(None, trouble.why)

    def _pause(self, attempt: int, asked: float | None) -> float:
        wait = _FIRST_WAIT * 2**attempt * float(self._jitter.uniform(1, 2))
        return max(wait, asked or 0.0)

    async def _post(self, ballot: Ballot) -> Reply | _Trouble:
        body = self._adapted(self._request(ballot))
        try:
            async with asyncio.timeout(self._spec.timeout):  # for the whole: a trickle is no answer
                response = await self._client.post(self._spec.url, json=body)
        except (TimeoutError, httpx2.TimeoutException):
            # Who never answered is not waited for twice.
            return _Trouble(f"no answer within {self._spec.timeout:g} s", passing=self._answered)
        except httpx2.InvalidURL as error:
            return _Trouble(f"an address that cannot be used: {error}", passing=False, final=True)
        except httpx2.HTTPError as error:
            return _Trouble(f"cannot be reached: {error or type(error).__name__}", passing=True)
        if response.status_code == 400 and self._adapt(response, body):
            return await self._post(ballot)
        return _read(response)

    def _request(self, ballot: Ballot) -> dict[str, Any]:
        """Return the body as any endpoint should take it."""
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [message.as_dict() for message in ballot.messages()],
            "temperature": 0,
            "seed": 0,
        }
        if self._spec.max_tokens is not None:
            body["max_tokens"] = self._spec.max_tokens
        return body

    def _adapted(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a body with the settings that this endpoint takes, by its names."""
        named = ((self._renamed.get(name, name), value) for name, value in body.items())
        return {name: value for name, value in named if name is not None}

    def _adapt(self, response: httpx2.Response, sent: dict[str, Any]) -> bool:
        """Learn which setting of a refused body to leave out, or to call by its newer name."""
        named = _error_param(response)
        if named not in _OPTIONAL or named not in sent:
            return False
        newer = _RENAMED.get(named)
        self._renamed[named] = newer if newer is not None and newer in response.text else None
        return True


def _read(response: httpx2.Response) -> Reply | _Trouble:
    status = response.status_code
    if status != 200:
        wait = _seconds(response.headers.get("Retry-After"))
        patient = wait is None or wait <= _LONGEST_WAIT
        return _Trouble(
            f"HTTP {status}: {_excerpt(response)}"
            + (
                ""
                if patient
                else f"; it asks to wait {wait:g} s, and {_LONGEST_WAIT:g} s is the most"
            ),
            passing=status in _RETRIED and patient,
            final=status in _REFUSED or not patient,
            wait=wait,
        )
    try:
        body = response.json()
        text = body["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        kind = "HTML" if "<html" in response.text[:2000].lower() else "not a chat completion"
        return _Trouble(f"answers with {kind}: {_excerpt(response)}", passing=False)
    if not isinstance(text, str):
        return _Trouble(f"answers without a text: {_excerpt(response)}", passing=False)
    model = body.get("model")
    return Reply(text, model=model if isinstance(model, str) else None)


def _error_param(response: httpx2.Response) -> str | None:
    try:
        named = response.json()["error"]["param"]
    except (ValueError, KeyError, TypeError):
        return None
    return named if isinstance(named, str) else None


def _excerpt(response: httpx2.Response) -> str:
    """Return the start of a body on one line, for a sentence."""
    text = " ".join(response.text.split())
    return repr(text[:_SHOWN] + ("…" if len(text) > _SHOWN else ""))


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:
        return None
