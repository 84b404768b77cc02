"""The gateway's data path: a bare ASGI application, one request from its bytes to its reply."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from limbeck.errors import UpstreamError
from limbeck.guard.accounts import Accounts
from limbeck.guard.ask import Ask
from limbeck.guard.counters import Counters
from limbeck.guard.heads import bearer, read_heads
from limbeck.guard.interface.endpoints import ENDPOINTS
from limbeck.guard.judge import UNKNOWN_KEY, Judge
from limbeck.guard.record import encode
from limbeck.guard.refusal import Refusal
from limbeck.guard.respond import BrokenStreamError, Way, respond
from limbeck.guard.sanction import SanctionRules
from limbeck.guard.server import CYCLE
from limbeck.guard.setting import Price, Setting
from limbeck.guard.tossing import Coins, Held
from limbeck.guard.upstream.door import Reply, Upstream

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Report = Callable[[bytes], None]
"""Takes a frame of `record`; must not block."""
Ready = Callable[[], "str | None"]
"""Returns None, or what is missing."""

MODELS = "/v1/models"
GONE = 499
"""The status under which a request is recorded whose client left before its reply was complete."""
BUSY = Refusal(
    503,
    "busy",
    "the gateway has as many requests under way as it may; try again",
    kind="server_error",
    retry_after_s=1,
)
NO_QUERY = Refusal(400, "unknown_parameter", "parameters belong into the body, not into the URL")
TELLING = frozenset({"not_in_plan", "logit_bias_with_logprobs", "unknown_parameter"})
"""Refusals that the watch hears of: asking for what is sealed is a signal too."""
_FREE = Price()
_JSON = [(b"content-type", b"application/json")]


class Gateway:
    """One worker's application. `setting` may be replaced at any time; requests under way keep theirs."""

    def __init__(
        self,
        setting: Setting,
        accounts: Accounts,
        upstream: Upstream,
        *,
        report: Report,
        counters: Counters | None = None,
        ready: Ready = lambda: None,
        metrics: Callable[[], Awaitable[bytes]] | None = None,
        rules: Callable[[], SanctionRules] = SanctionRules,
        looks: Callable[[str, float], bool] = lambda account, now: True,
        coins: Coins | None = None,
        report_coin: Report = lambda coin: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.accounts = accounts
        self.upstream = upstream
        self.counters = counters or Counters()
        self.draining = False
        self.closed: Refusal | None = None
        """What every request is answered while a part is away that must not be."""
        self._report = report
        self._ready = ready
        self._metrics = metrics
        self._rules = rules
        self._looks = looks
        self._coins = coins
        self._report_coin = report_coin
        self._clock = clock
        self.replace(setting)

    def replace(self, setting: Setting) -> None:
        """Judge requests by another setting from now on."""
        self._setting = setting
        self._judge = Judge(setting, self.accounts, self._clock, self._rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway speaks HTTP, got {scope['type']!r}")
        endpoint = ENDPOINTS.get(scope["path"])
        if endpoint is None:
            await self._aside(scope, send)
            return
        counters = self.counters
        if self.closed is not None or counters.in_flight >= self._setting.in_flight:
            counters.refused((self.closed or BUSY).code)
            await self._refuse(send, self.closed or BUSY)
            return
        counters.in_flight += 1
        client = scope["client"]
        ask = Ask(endpoint, self._clock(), time.perf_counter(), client[0] if client else "")
        try:
            await self._answer(ask, scope, receive, send)
        except asyncio.CancelledError:  # the client has gone; the server makes that a cancellation
            counters.gone += 1
            ask.status = GONE
        except BrokenStreamError:
            counters.broken += 1
            raise
        finally:
            counters.in_flight -= 1
            self._remember(ask)

    async def _answer(self, ask: Ask, scope: Scope, receive: Receive, send: Send) -> None:
        setting, judge = self._setting, self._judge
        refusal = await self._read(ask, setting, scope, receive) or judge.judge(ask)
        if refusal is None:
            refusal = await self._serve(ask, setting, judge, scope, send)
        if refusal is not None:
            ask.status, ask.code = refusal.status, refusal.code
            await self._refuse(send, refusal)

    async def _read(
        self, ask: Ask, setting: Setting, scope: Scope, receive: Receive
    ) -> Refusal | None:
        if scope["method"] != "POST":
            return Refusal(405, "method", f"{ask.endpoint.path} takes POST")
        if scope["query_string"]:
            return NO_QUERY
        heads = read_heads(scope["headers"], setting.client_ip_header)
        if isinstance(heads, Refusal):
            return heads
        ask.heads = heads
        most = setting.body_bytes
        if heads.length > most:
            return _too_large(most)
        cycle = scope.get(CYCLE)
        if (
            cycle is not None and not cycle.more_body
        ):  # nearly always: the body came with the headers
            ask.raw = bytes(cycle.body)
            return None if len(ask.raw) <= most else _too_large(most)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        ask.raw = message["body"]
        if message["more_body"]:
            return await _rest_of_body(ask, receive, most)
        return None if len(ask.raw) <= most else _too_large(most)

    async def _serve(
        self, ask: Ask, setting: Setting, judge: Judge, scope: Scope, send: Send
    ) -> Refusal | None:
        admitted, heads = ask.admitted, ask.heads
        assert admitted is not None  # noqa: S101
        assert heads is not None  # noqa: S101
        headers = [*setting.upstream_headers, *heads.forwarded]
        reply: Reply | None = None
        try:
            if self._coins is not None and self._coins.wants(ask):
                reply = await self._toss(ask, self._coins, setting, headers, admitted.body)
            else:
                reply = await self.upstream.send("POST", ask.endpoint.path, headers, admitted.body)
            return await respond(ask, reply, setting, Way(scope, send), judge.still_welcome)
        except UpstreamError as error:
            self.counters.upstream_errors += 1
            late = "silent" in str(error)
            code, status = ("upstream_timeout", 504) if late else ("upstream_error", 502)
            return Refusal(status, code, str(error), kind="server_error")
        finally:
            if reply is not None:
                reply.close()

    async def _toss(
        self,
        ask: Ask,
        coins: Coins,
        setting: Setting,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
    ) -> Reply:
        """Ask twice, and let a keyed bit say which answer is served."""

        async def whole() -> Held:
            reply = await self.upstream.send("POST", ask.endpoint.path, headers, body)
            try:
                return Held(reply.status, reply.headers, await reply.body(setting.reply_bytes))
            finally:
                reply.close()

        first, second = await asyncio.gather(whole(), whole())
        served, coin = coins.choose(ask, (first, second), setting.tags)
        if coin is not None:
            self._report_coin(coin)
        return served

    def _remember(self, ask: Ask) -> None:
        """Settle the budget, count, and tell the keeper."""
        seconds = time.perf_counter() - ask.begun
        counters = self.counters
        counters.served(ask.endpoint.path, ask.status, seconds)
        if ask.code:
            counters.refused(ask.code)
        if ask.cut:
            counters.cut += 1
        if ask.late:
            counters.late += 1
        if ask.reservation is not None:
            self._settle(ask)
        self._tell(ask, seconds)

    def _tell(self, ask: Ask, seconds: float) -> None:
        """Hand the request to the signals, if they are to look at it."""
        holder = ask.holder
        if holder is None or ask.request is None:
            return
        if ask.code in TELLING or (ask.admitted is not None and self._looks(holder.id, ask.now)):
            self._report(encode(ask.facts(seconds), ask.raw))

    def _settle(self, ask: Ask) -> None:
        assert ask.reservation is not None  # noqa: S101
        assert ask.admitted is not None  # noqa: S101
        if not ask.served:
            # The upstream was asked in vain or said no: the request counts, its tokens do not.
            if ask.status >= 500:
                ask.reservation.release()
            else:
                ask.reservation.settle(tokens=0, cost=0)
            return
        prompt = len(ask.raw) // 4 if ask.prompt_tokens is None else ask.prompt_tokens
        answer = ask.completion_tokens
        if answer is None:
            answer = len(ask.text) // 4 if ask.text else 0
        self.counters.prompt_tokens += prompt
        self.counters.completion_tokens += answer
        price = self._setting.prices.get(ask.admitted.model.name, _FREE)
        ask.reservation.settle(tokens=prompt + answer, cost=price.of(prompt, answer))

    async def _refuse(self, send: Send, refusal: Refusal) -> None:
        body = refusal.body
        headers = [*refusal.headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _aside(self, scope: Scope, send: Send) -> None:
        """Answer what is no endpoint of a model."""
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            refusal = Refusal(404, "unknown_path", f"{path[:128]!r} is no path of this server")
        elif path == "/healthz":
            await _say(send, b'{"status":"ok"}')
            return
        elif path == "/readyz":
            await self._say_ready(send)
            return
        elif path == "/metrics" and self._metrics is not None and _is_local(scope):
            await self._say_metrics(self._metrics, send)
            return
        elif path == MODELS or path.startswith(MODELS + "/"):
            refusal = await self._say_models(scope, path, send)
            if refusal is None:
                return
        else:
            refusal = Refusal(404, "unknown_path", f"{path[:128]!r} is no path of this server")
        self.counters.refused(refusal.code)
        await self._refuse(send, refusal)

    async def _say_metrics(self, metrics: Callable[[], Awaitable[bytes]], send: Send) -> None:
        try:
            text = await metrics()
        except (ConnectionError, TimeoutError):
            await self._refuse(
                send, Refusal(503, "keeper_away", "the keeper is away", kind="server_error")
            )
            return
        await _say(send, text, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")])

    async def _say_ready(self, send: Send) -> None:
        lack = "the server is draining" if self.draining else self._ready()
        if lack is None:
            await _say(send, b'{"status":"ready"}')
        else:
            await self._refuse(send, Refusal(503, "not_ready", lack, kind="server_error"))

    async def _say_models(self, scope: Scope, path: str, send: Send) -> Refusal | None:
        key = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        holder = self.accounts.authenticate(bearer(key), self._clock()) if key else None
        if holder is None:
            return UNKNOWN_KEY
        cards = [_card(name) for name in self._setting.models]
        if path == MODELS:
            await _say(send, orjson.dumps({"object": "list", "data": cards}))
            return None
        wanted = path.removeprefix(MODELS + "/")
        for card in cards:
            if card["id"] == wanted:
                await _say(send, orjson.dumps(card))
                return None
        return Refusal(404, "model_not_found", f"model {wanted[:64]!r} is not served here", "model")


async def _rest_of_body(ask: Ask, receive: Receive, most: int) -> Refusal | None:
    parts, size = [ask.raw], len(ask.raw)
    more = True
    while more:
        if size > most:
            return _too_large(most)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        parts.append(message["body"])
        size += len(message["body"])
        more = message["more_body"]
    ask.raw = b"".join(parts)
    return None if size <= most else _too_large(most)


def _too_large(most: int) -> Refusal:
    return Refusal(413, "body_too_large", f"the body must be at most {most} bytes long")


async def _say(send: Send, body: bytes, headers: list[tuple[bytes, bytes]] = _JSON) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _card(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "limbeck"}


def _is_local(scope: Scope) -> bool:
    client = scope["client"]
    return client is not None and (client[0] == "::1" or client[0].startswith("127."))
