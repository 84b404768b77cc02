"""An upstream's reply on its way to the client: whole or streamed, sealed or as it came."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import orjson

from limbeck.errors import UpstreamError
from limbeck.guard.ask import Ask
from limbeck.guard.heads import Header, header, reply_headers, with_length
from limbeck.guard.refusal import Refusal
from limbeck.guard.said import text_of, tokens_of
from limbeck.guard.seal.reply import seal_error, seal_reply
from limbeck.guard.seal.stream import SealedStream
from limbeck.guard.server import CYCLE, WHOLE
from limbeck.guard.setting import Setting
from limbeck.guard.sse import Events, payload
from limbeck.guard.upstream.door import Reply

Send = Callable[[dict[str, Any]], Awaitable[None]]
LOOK_S = 0.5
"""How often a request under way is asked whether its key is still in force."""
REMOVED = b"x-limbeck-removed"
"""The reply header that names the parameters that were left out of the request."""
_PLAIN = re.compile(r"[\w.-]{1,64}", re.ASCII)
"""Names of parameters that may stand in a header; they are the caller's to make up."""
_BODILESS = (204, 304)
UNREADABLE = Refusal(
    502,
    "upstream_unreadable",
    "the model server's reply could not be read, so nothing can be said of what it holds; it was not passed on",
    kind="server_error",
)  # fmt: skip

REVOKED = Refusal(
    401,
    "invalid_api_key",
    "the key was revoked, or its account stopped, while the request was under way",
)


class BrokenStreamError(Exception):
    """A stream that ends early; raised to make the server close the connection without a proper end."""


class Way(NamedTuple):
    """The way back to the client."""

    scope: Mapping[str, Any]
    send: Send

    async def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        """Send a whole reply, at once where the server can."""
        at_once = self.scope.get(WHOLE)
        if at_once is not None:
            at_once(self.scope[CYCLE], status, headers, body)
            return
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class PlainStream:
    """A stream that passes as it comes; only its tokens are read."""

    late = False
    cut = False

    def __init__(self) -> None:
        self._events = Events()
        self.count = 0
        self.usage: dict[str, Any] | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Return the chunk."""
        events = self._events.feed(chunk)
        self.count += len(events)
        for event in events:
            if b'"usage"' in event:
                self._note(event)
        return chunk

    def finish(self) -> bytes:
        """Return nothing: all is gone already."""
        return b""

    def whole(self, out: bytes) -> int | None:
        """Return how much of the last chunk ends with an event, None if no event ended in it."""
        kept = len(out) - len(self._events.rest)
        return kept if kept > 0 else None

    def _note(self, event: bytes) -> None:
        try:
            said = orjson.loads(payload(event) or b"")
        except ValueError:
            return
        if type(said) is dict:
            inner = said.get("response")
            usage = (inner if type(inner) is dict else said).get("usage")
            self.usage = usage if type(usage) is dict else self.usage


async def respond(
    ask: Ask, reply: Reply, setting: Setting, way: Way, welcome: Callable[[Ask], bool]
) -> Refusal | None:
    """Send the reply to the client, or return why it must not be sent.

    Raises:
        UpstreamError: The reply broke off before anything was sent.
        BrokenStreamError: It broke off afterwards.
    """
    if 300 <= reply.status < 400:
        return Refusal(
            502,
            "upstream_redirects",
            "the model server redirects, which is not followed",
            kind="server_error",
        )
    kind = header(reply.headers, b"content-type") or b""
    if ask.sealed and header(reply.headers, b"content-encoding") not in (None, b"identity"):
        return UNREADABLE
    if kind.startswith(b"text/event-stream") and reply.status < 400:
        return await _stream(ask, reply, setting, way.send, welcome)
    body = await reply.body(setting.reply_bytes)
    sealed = _sealed(ask, body, reply.status, setting)
    if sealed is None:
        return UNREADABLE
    if time.perf_counter() - ask.begun > LOOK_S and not welcome(ask):
        return REVOKED
    headers = _headers(ask, reply)
    ask.status = reply.status
    ask.served = reply.status < 400
    if sealed is not body or (
        header(headers, b"content-length") is None and reply.status not in _BODILESS
    ):
        headers = with_length(headers, len(sealed))
    await way.whole(reply.status, headers, sealed)
    return None


def _sealed(ask: Ask, body: bytes, status: int, setting: Setting) -> bytes | None:
    """Return the body as it may leave, and note what it says; None if it may not leave at all."""
    if status >= 400:
        return seal_error(body, setting.tags) if ask.sealed else body
    if not ask.sealed:
        _note(ask, _read(body))
        return body
    sealed = seal_reply(
        body,
        ask.endpoint.path,
        setting.tags,
        within=ask.within(setting.tags),
        logprobs=ask.logprobs,
    )
    if sealed is None:
        return None
    ask.cut = sealed.cut
    _note(ask, sealed.reply)
    return sealed.body


def _read(body: bytes) -> dict[str, Any]:
    try:
        reply = orjson.loads(body)
    except ValueError:
        return {}
    return reply if type(reply) is dict else {}


def _note(ask: Ask, reply: dict[str, Any]) -> None:
    ask.prompt_tokens, ask.completion_tokens = tokens_of(reply.get("usage"))
    if ask.completion_tokens is None:
        ask.text = text_of(reply)


def _headers(ask: Ask, reply: Reply) -> list[Header]:
    headers = reply_headers(reply.headers)
    if ask.sealed:
        headers = [one for one in headers if b"reasoning" not in one[0].lower()]
    admitted = ask.admitted
    if admitted is not None and admitted.removed:
        names = [name if _PLAIN.fullmatch(name) else "?" for name in admitted.removed]
        headers.append((REMOVED, ", ".join(names).encode()))
    return headers


async def _stream(
    ask: Ask, reply: Reply, setting: Setting, send: Send, welcome: Callable[[Ask], bool]
) -> Refusal | None:
    stream = (
        SealedStream(
            ask.endpoint.path, setting.tags, within=ask.within(setting.tags), logprobs=ask.logprobs
        )
        if ask.sealed
        else PlainStream()
    )
    headers = [one for one in _headers(ask, reply) if one[0].lower() != b"content-length"]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    ask.status = reply.status
    ask.served = True
    try:
        await _pipe(ask, reply, stream, send, welcome)
    finally:
        ask.cut, ask.late = stream.cut, stream.late
        prompt, completion = tokens_of(stream.usage)
        ask.prompt_tokens = prompt
        ask.completion_tokens = stream.count if completion is None else completion
    return None


async def _pipe(
    ask: Ask,
    reply: Reply,
    stream: SealedStream | PlainStream,
    send: Send,
    welcome: Callable[[Ask], bool],
) -> None:
    look = time.monotonic() + LOOK_S
    stopping = False
    try:
        while chunk := await reply.chunk():
            out = stream.feed(chunk)
            if not stopping and time.monotonic() > look:
                stopping = not welcome(ask)
                look = time.monotonic() + LOOK_S
            if stopping and (end := stream.whole(out)) is not None:
                await _stop(ask, out[:end], send)
            if out:
                await send({"type": "http.response.body", "body": out, "more_body": True})
    except UpstreamError as error:
        ask.code = "upstream_broke_off"
        raise BrokenStreamError(str(error)) from None
    await send({"type": "http.response.body", "body": stream.finish(), "more_body": False})


async def _stop(ask: Ask, last: bytes, send: Send) -> None:
    """Tell the client why its stream ends here, as an event, and end it improperly."""
    ask.code = REVOKED.code
    said = last + b"data: " + REVOKED.body + b"\n\n"
    await send({"type": "http.response.body", "body": said, "more_body": True})
    raise BrokenStreamError(REVOKED.message)
