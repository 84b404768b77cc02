import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from limbeck.validate.judge import endpoint
from limbeck.validate.judge.ballot import Ballot
from limbeck.validate.judge.cache import ReplyCache
from limbeck.validate.judge.endpoint import GIVE_UP_AFTER, Endpoint, Reply
from limbeck.validate.judge.spec import JudgeSpec

BALLOT = Ballot("Why?", "Because.", "So.")
ADDRESS = "http://127.0.0.1:9/v1/chat/completions"

Answering = Callable[[httpx2.Request], httpx2.Response]


def _completion(text: str = "[[A]]", **more: Any) -> httpx2.Response:
    return httpx2.Response(200, json={"choices": [{"message": {"content": text}}], **more})


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)


def _ask(
    run: Any,
    answering: Answering,
    ballots: int = 1,
    *,
    spec: JudgeSpec | None = None,
    cache: ReplyCache | None = None,
) -> list[Reply]:
    async def work() -> list[Reply]:
        judge = Endpoint(
            spec or JudgeSpec("gold", ADDRESS, retries=1),
            ReplyCache() if cache is None else cache,
            seed=0,
            transport=httpx2.MockTransport(answering),
        )
        async with judge:
            return [await judge.ask(Ballot(f"{i}", "a", "b")) for i in range(ballots)]

    return run(work())


def test_the_request_is_what_openai_compatible_servers_take(run: Any) -> None:
    seen: list[httpx2.Request] = []

    def answering(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return _completion(model="gold-7b")

    (reply,) = _ask(run, answering, spec=JudgeSpec("gold", ADDRESS, key="secret"))
    assert reply == Reply("[[A]]", model="gold-7b")
    body = json.loads(seen[0].content)
    assert str(seen[0].url) == ADDRESS
    assert body["model"] == "gold"
    assert body["temperature"] == 0
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert seen[0].headers["Authorization"] == "Bearer secret"
    assert seen[0].headers["User-Agent"].startswith("limbeck/")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_that_may_pass_is_tried_again(run: Any, status: int) -> None:
    replies = iter([httpx2.Response(status, headers={"Retry-After": "0"}), _completion("[[B]]")])
    (reply,) = _ask(run, lambda _: next(replies))
    assert reply.text == "[[B]]"


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_provider_that_says_no_is_not_asked_again(run: Any, status: int) -> None:
    seen: list[httpx2.Request] = []

    def answering(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(status, text="not  allowed\nhere")

    replies = _ask(run, answering, 3)
    assert len(seen) == 1
    assert [r.failure for r in replies] == [f"HTTP {status}: 'not allowed here'"] * 3


def test_a_server_that_asks_for_a_long_wait_is_left_alone(run: Any) -> None:
    seen: list[httpx2.Request] = []

    def answering(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(429, headers={"Retry-After": "3600"})

    replies = _ask(run, answering, 2)
    assert len(seen) == 1
    assert "asks to wait 3600 s" in str(replies[1].failure)


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (httpx2.Response(200, text="<!doctype html><html>log in</html>"), "answers with HTML"),
        (httpx2.Response(200, text="{half"), "not a chat completion"),
        (httpx2.Response(200, json={"choices": []}), "not a chat completion"),
        (httpx2.Response(200, json=[1]), "not a chat completion"),
        (
            httpx2.Response(200, json={"choices": [{"message": {"content": None}}]}),
            "without a text",
        ),
        (httpx2.Response(302, headers={"Location": "/login"}), "HTTP 302"),
    ],
)
def test_what_is_no_answer_is_said_in_a_sentence(
    run: Any, response: httpx2.Response, said: str
) -> None:
    (reply,) = _ask(run, lambda _: response)
    assert reply.text is None
    assert said in str(reply.failure)


def test_a_judge_that_keeps_failing_is_given_up(run: Any) -> None:
    seen: list[httpx2.Request] = []

    def answering(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        raise httpx2.ConnectError("refused")

    replies = _ask(run, answering, GIVE_UP_AFTER + 5)
    assert len(seen) == 2 * GIVE_UP_AFTER
    assert "given up" in str(replies[-1].failure)


def test_one_answer_in_between_keeps_a_judge_alive(run: Any) -> None:
    turns = iter(range(100))

    def answering(_: httpx2.Request) -> httpx2.Response:
        return _completion() if next(turns) % 4 == 3 else httpx2.Response(200, text="?")

    replies = _ask(run, answering, 16, spec=JudgeSpec("gold", ADDRESS, retries=0))
    assert sum(r.text is not None for r in replies) == 4


def test_settings_that_an_endpoint_refuses_are_renamed_or_left_out(run: Any) -> None:
    bodies: list[dict[str, Any]] = []

    def answering(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        bodies.append(body)
        for name, hint in (("max_tokens", "use max_completion_tokens"), ("temperature", "no")):
            if name in body:
                return httpx2.Response(400, json={"error": {"param": name, "message": hint}})
        return _completion()

    replies = _ask(run, answering, 2)
    assert [r.text for r in replies] == ["[[A]]"] * 2
    assert len(bodies) == 4
    assert bodies[-1]["max_completion_tokens"] == 512
    assert "temperature" not in bodies[-1]


def test_another_refusal_is_a_failure_and_no_endless_loop(run: Any) -> None:
    refusal = httpx2.Response(400, json={"error": {"param": "messages"}})
    (reply,) = _ask(run, lambda _: refusal)
    assert "HTTP 400" in str(reply.failure)


def test_nothing_is_asked_twice(run: Any, tmp_path: Path) -> None:
    def forbidden(_: httpx2.Request) -> httpx2.Response:
        raise AssertionError("asked again")

    path = tmp_path / "replies.jsonl"
    _ask(run, lambda _: _completion("[[B]]"), 2, cache=ReplyCache(path))
    replies = _ask(run, forbidden, 2, cache=ReplyCache(path))
    assert replies == [Reply("[[B]]", cached=True)] * 2


def test_failures_are_not_kept(run: Any) -> None:
    cache = ReplyCache()
    _ask(run, lambda _: httpx2.Response(200, text="<html>"), cache=cache)
    assert len(cache) == 0


def test_no_more_requests_are_under_way_than_allowed(run: Any) -> None:
    import asyncio

    under_way = 0
    most = 0

    async def answering(_: httpx2.Request) -> httpx2.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.002)
        under_way -= 1
        return _completion()

    async def work() -> None:
        spec = JudgeSpec("gold", ADDRESS, concurrency=3)
        transport = httpx2.MockTransport(answering)
        async with Endpoint(spec, ReplyCache(), seed=0, transport=transport) as judge:
            await asyncio.gather(*(judge.ask(Ballot(f"{i}", "a", "b")) for i in range(12)))

    run(work())
    assert most == 3


class _Silent(BaseHTTPRequestHandler):
    end = threading.Event()

    def do_POST(self) -> None:
        self.end.wait()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def silent_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Silent)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
    _Silent.end.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_judge_that_never_answers_is_waited_for_once(run: Any, silent_url: str) -> None:
    async def work() -> Reply:
        spec = JudgeSpec("mute", silent_url, timeout=0.2, retries=5)
        async with Endpoint(spec, ReplyCache(), seed=0) as judge:
            return await judge.ask(BALLOT)

    assert run(work()) == Reply(None, "no answer within 0.2 s")


def test_a_judge_that_is_not_there_is_said_to_be(run: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def work() -> Reply:
        spec = JudgeSpec("gone", f"http://127.0.0.1:{port}/v1/chat/completions", retries=1)
        async with Endpoint(spec, ReplyCache(), seed=0) as judge:
            return await judge.ask(BALLOT)

    assert "cannot be reached" in str(run(work()).failure)
