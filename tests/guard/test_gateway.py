"""The data path against an upstream that can do anything: who gets in, what gets out, what is remembered."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from guard.fakeupstream import (
    END,
    HANG_UP,
    STREAM_HEAD,
    Asked,
    Pieces,
    always,
    chunked,
    completion,
    delta,
    whole,
)
from guard.running import CHAT, KEY, Client, Running, hello, request, running, settings
from limbeck.guard.account import Budget, Measure, Plan, Standing, SubAccounts, Window
from limbeck.guard.decision import Action, Reason
from limbeck.guard.interface.admit import Sealing, ServedModel
from limbeck.guard.memory import holder_of
from limbeck.guard.sanction import Mode, SanctionRules
from limbeck.guard.server import Limits
from limbeck.guard.upstream.door import Patience

OK = always(whole(completion()))
Test = Callable[[Running, Client], Awaitable[None]]


def with_gateway(test: Test, play: Any = OK, **more: Any) -> None:
    """Run a test against a gateway."""

    async def run() -> None:
        async with running(play, **more) as run, Client(run.port) as client:
            await test(run, client)

    asyncio.run(run())


def plan(*capabilities: str, **more: Any) -> Plan:
    return Plan("p", capabilities=frozenset(capabilities), **more)


async def eventually(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true within 2 s")


def test_a_request_reaches_the_upstream_as_it_came_and_without_the_key() -> None:
    async def test(run: Running, client: Client) -> None:
        body = b'{ "model":"m" , "messages":[{"role":"user","content":"\\u00e9"}] }'
        got = await client.post(
            body, user_agent="ua/1", traceparent="00-1-2-01", cookie="a=b", x_other="1"
        )
        assert (got.status, got.body) == (200, completion())
        (asked,) = run.fake.asked
        assert asked.body == body
        assert asked.path == CHAT
        assert asked.header("user-agent") == "ua/1"
        assert asked.header("traceparent") == "00-1-2-01"
        assert {name.lower() for name, _ in asked.headers} == {
            "host", "content-type", "content-length", "user-agent", "traceparent",
        }  # fmt: skip
        (facts,) = run.facts
        assert (
            facts.account,
            facts.status,
            facts.model,
            facts.prompt_tokens,
            facts.completion_tokens,
        ) == ("a", 200, "m", 9, 3)

    with_gateway(test)


def test_the_upstreams_own_key_goes_upstream_and_no_further() -> None:
    async def test(run: Running, client: Client) -> None:
        got = await client.post(hello())
        assert run.fake.asked[0].header("authorization") == "Bearer theirs"
        assert not any("theirs" in value for _, value in got.headers)

    with_gateway(test, setting=settings(upstream_headers=((b"authorization", b"Bearer theirs"),)))


@pytest.mark.parametrize("key", [None, "", "wrong", "lk-test ", "Basic x"])
def test_without_a_good_key_nothing_is_asked(key: str | None) -> None:
    async def test(run: Running, client: Client) -> None:
        got = await client.post(hello(), key=key)
        if key == "lk-test ":  # white space around a value is no part of it
            assert got.status == 200
            return
        assert (got.status, got.code) == (401, "invalid_api_key")
        assert run.fake.asked == []
        assert run.facts == []

    with_gateway(test)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b'{"model":"m","model":"m","messages":[]}', 400, "duplicate_key"),
        (hello(model="other"), 404, "model_not_found"),
        (hello(best_of=1), 400, "unknown_parameter"),
        (hello(logprobs=True), 403, "not_in_plan"),
        (hello(n=0), 400, "invalid_value"),
    ],
)
def test_what_is_not_admitted_is_refused_in_the_form_of_the_api(
    body: bytes, status: int, code: str
) -> None:
    async def test(run: Running, client: Client) -> None:
        got = await client.post(body)
        assert (got.status, got.code) == (status, code)
        assert got.json["error"].keys() == {"message", "type", "param", "code"}
        assert run.fake.asked == []

    with_gateway(test)


def test_probing_what_is_sealed_is_remembered_and_noise_is_not() -> None:
    async def test(run: Running, client: Client) -> None:
        await client.post(hello(logprobs=True))
        await client.post(hello(n=0))
        await client.post(b"{")
        assert [facts.code for facts in run.facts] == ["not_in_plan"]

    with_gateway(test)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", CHAT, 405), ("POST", "/v1/files", 404), ("GET", "/", 404), ("DELETE", "/v1/models", 404),
     ("POST", CHAT + "?api-version=1", 400), ("GET", "/v1/chat/completions/", 404), ("POST", "//v1/chat/completions", 404)],
)  # fmt: skip
def test_other_ways_lead_nowhere(method: str, path: str, status: int) -> None:
    async def test(run: Running, client: Client) -> None:
        raw = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 0\r\n\r\n"
        got = await client.raw(raw.encode())
        assert got.status == status
        assert run.fake.asked == []

    with_gateway(test)


def test_the_models_that_are_served_are_listed_under_their_own_names() -> None:
    async def test(run: Running, client: Client) -> None:
        assert [card["id"] for card in (await client.get("/v1/models")).json["data"]] == [
            "alias",
            "m",
        ]
        assert (await client.get("/v1/models/alias")).json["id"] == "alias"
        assert (await client.get("/v1/models/real")).status == 404
        assert (await client.get("/v1/models", key=None)).status == 401
        await client.post(hello(model="alias"))
        assert run.fake.asked[0].json["model"] == "real"

    models = {"alias": ServedModel("alias", "real"), "m": ServedModel("m", "m")}
    with_gateway(test, setting=settings(models=models))


def test_a_plan_may_leave_models_out() -> None:
    async def test(run: Running, client: Client) -> None:
        assert (await client.post(hello())).code == "model_not_in_plan"

    with_gateway(test, holders={KEY: holder_of("a", plan(models=("other",)))})


def test_a_dropped_parameter_is_named_in_the_reply() -> None:
    async def test(run: Running, client: Client) -> None:
        got = await client.post(hello(logprobs=True, fancy=1))
        assert got.header("x-limbeck-removed") == "logprobs, fancy"
        assert run.fake.asked[0].json == orjson.loads(hello())
        assert run.facts[0].removed == ("logprobs", "fancy")

    with_gateway(test, setting=settings(sealing=Sealing("drop", "drop")))


# Budgets


def test_budgets_are_reserved_settled_and_refused_with_a_time_to_wait() -> None:
    budgets = (Budget(Measure.REQUESTS, Window.DAY, 3), Budget(Measure.TOKENS, Window.DAY, 500))

    async def test(run: Running, client: Client) -> None:
        for _ in range(3):
            assert (await client.post(hello(max_tokens=100))).status == 200
        got = await client.post(hello(max_tokens=100))
        assert (got.status, got.code) == (429, "budget_exceeded")
        assert 0 < int(got.header("retry-after") or 0) <= 86_400
        assert len(run.fake.asked) == 3

    with_gateway(test, holders={KEY: holder_of("a", plan(budgets=budgets))})


def test_a_request_that_could_cost_more_than_is_left_is_not_served() -> None:
    async def test(run: Running, client: Client) -> None:
        assert (await client.post(hello(max_tokens=5_000))).code == "budget_exceeded"
        assert (await client.post(hello(max_tokens=100))).status == 200

    with_gateway(
        test,
        holders={KEY: holder_of("a", plan(budgets=(Budget(Measure.TOKENS, Window.DAY, 500),)))},
    )


def test_an_upstream_that_fails_is_not_charged_for() -> None:
    async def test(run: Running, client: Client) -> None:
        for _ in range(3):
            assert (await client.post(hello())).status == 500

    failing = always(whole(b'{"error":{"message":"no"}}', "500 No"))
    with_gateway(
        test,
        failing,
        holders={KEY: holder_of("a", plan(budgets=(Budget(Measure.REQUESTS, Window.DAY, 1),)))},
    )


# The ladder


def standing(action: Action, **more: Any) -> Standing:
    return Standing(
        "a",
        action=action,
        since=1.7e9,
        clause="accusation",
        because=(Reason("new_ground_rate", 0.93),),
        **more,
    )


def enforced(
    test: Test, action: Action, play: Any = OK, mode: Mode = Mode.ENFORCE, **more: Any
) -> None:
    async def ruled(run: Running, client: Client) -> None:
        run.app._rules = lambda: SanctionRules(mode=mode, appeal_to="appeals@example.org")  # pyright: ignore[reportPrivateUsage]
        run.app.replace(run.app._setting)  # pyright: ignore[reportPrivateUsage]
        await test(run, client)

    holder = holder_of("a", plan("logprobs", "reasoning"), standing=standing(action, **more))
    with_gateway(ruled, play, holders={KEY: holder})


@pytest.mark.parametrize(
    ("action", "code"),
    [(Action.CHALLENGE, "declare_use"), (Action.HOLD, "held"), (Action.BLOCK, "blocked")],
)
def test_whoever_is_stopped_is_told_the_truth_and_how_to_object(action: Action, code: str) -> None:
    async def test(run: Running, client: Client) -> None:
        got = await client.post(hello())
        assert (got.status, got.code) == (403, code)
        message = got.json["error"]["message"]
        for part in ("account a", "accusation", "new_ground_rate", "appeals@example.org"):
            assert part in message
        assert "0.93" not in message
        assert run.fake.asked == []

    enforced(test, action)


@pytest.mark.parametrize("action", list(Action))
def test_in_shadow_mode_nothing_is_done_that_no_person_signed(action: Action) -> None:
    async def test(run: Running, client: Client) -> None:
        assert (await client.post(hello(logprobs=True))).status == 200

    enforced(test, action, mode=Mode.SHADOW)


def test_what_a_person_signed_holds_in_shadow_mode_too() -> None:
    async def test(run: Running, client: Client) -> None:
        assert (await client.post(hello())).code == "blocked"

    enforced(test, Action.BLOCK, mode=Mode.SHADOW, signed_off_by="anna")


def test_a_reduced_account_gets_genuine_answers_without_extras_and_is_told() -> None:
    message = {"role": "assistant", "content": "Hello.", "reasoning_content": "secret"}
    body = completion(
        choices=[
            {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": []}}
        ]
    )

    async def test(run: Running, client: Client) -> None:
        got = await client.post(hello(logprobs=True, top_logprobs=3))
        assert run.fake.asked[0].json == orjson.loads(hello())
        assert got.header("x-limbeck-removed") == "logprobs, top_logprobs"
        (choice,) = got.json["choices"]
        assert choice["message"] == {"role": "assistant", "content": "Hello."}
        assert b"secret" not in got.body

    enforced(test, Action.REDUCE, always(whole(body)))


def test_a_slowed_account_is_served_at_a_lower_pace() -> None:
    async def test(run: Running, client: Client) -> None:
        assert (await client.post(hello())).status == 200
        got = await client.post(hello())
        assert (got.status, got.code) == (429, "slowed")
        assert 1 <= int(got.header("retry-after") or 0) <= 10

    enforced(test, Action.THROTTLE)


def test_a_reseller_must_name_its_users_and_only_the_guilty_one_is_held() -> None:
    from dataclasses import replace

    holder = holder_of("a")
    holder = replace(
        holder, account=replace(holder.account, sub_accounts=SubAccounts(required=True))
    )

    async def test(run: Running, client: Client) -> None:
        run.accounts.standings["a/mallory"] = Standing(
            "a", "mallory", Action.HOLD, signed_off_by="anna"
        )
        assert (await client.post(hello())).code == "user_required"
        assert (await client.post(hello(user="alice"))).status == 200
        assert (await client.post(hello(user="mallory"))).code == "held"
        assert [(f.account, f.user) for f in run.facts] == [("a", "alice")]

    with_gateway(test, holders={KEY: holder})


# Streams


def test_a_stream_arrives_event_by_event() -> None:
    gate = asyncio.Event()

    async def play(asked: Asked) -> Pieces:
        yield STREAM_HEAD + chunked(delta("a"))
        await gate.wait()
        yield chunked(delta("b")) + chunked(b"data: [DONE]\n\n") + END

    async def test(run: Running, client: Client) -> None:
        reader, writer = await client.streams()
        writer.write(request(hello(stream=True)))
        first = await asyncio.wait_for(reader.readuntil(delta("a")), 2)
        assert b"text/event-stream" in first
        gate.set()
        await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 2)
        await eventually(lambda: bool(run.facts))
        assert run.facts[0].stream
        assert run.facts[0].completion_tokens == 2

    with_gateway(test, play)


@pytest.mark.parametrize("sealed", [True, False])
def test_an_upstream_that_stops_in_mid_event_gives_the_client_no_proper_end(sealed: bool) -> None:
    async def play(asked: Asked) -> Pieces:
        yield STREAM_HEAD + chunked(delta("a")) + chunked(delta("b")[:40])
        await asyncio.sleep(0.02)
        yield HANG_UP

    async def test(run: Running, client: Client) -> None:
        got = await client.post(hello(stream=True))
        assert not got.whole
        assert got.body.startswith(delta("a"))
        if sealed:
            assert got.body == delta("a")
        assert run.facts[0].code == "upstream_broke_off"

    holders = {KEY: holder_of("a", plan(*([] if sealed else ["reasoning"])))}
    with_gateway(test, play, holders=holders)


def test_a_client_that_leaves_ends_the_upstreams_work() -> None:
    async def play(asked: Asked) -> Pieces:
        yield STREAM_HEAD
        while True:
            yield chunked(delta("on and on "))
            await asyncio.sleep(0.005)

    async def test(run: Running, client: Client) -> None:
        reader, _ = await client.streams()
        (await client.streams())[1].write(request(hello(stream=True)))
        await reader.readuntil(delta("on and on "))
        client.close()
        await eventually(lambda: run.fake.left == 1)
        assert run.facts[0].status == 499
        assert run.app.counters.gone == 1
        assert run.app.counters.in_flight == 0

    with_gateway(test, play)


def test_a_client_that_leaves_before_the_reply_ends_the_upstreams_work_too() -> None:
    async def play(asked: Asked) -> Pieces:
        for _ in range(400):
            await asyncio.sleep(0.005)
            yield b"" if False else b"HTTP/1.1 100 Continue\r\n\r\n"

    async def test(run: Running, client: Client) -> None:
        _, writer = await client.streams()
        writer.write(request(hello()))
        await eventually(lambda: bool(run.fake.asked))
        client.close()
        await eventually(lambda: run.fake.left == 1)

    with_gateway(test, play)


def test_a_slow_client_holds_the_upstream_back_and_memory_stays_bounded() -> None:
    written = 0

    async def play(asked: Asked) -> Pieces:
        nonlocal written
        yield STREAM_HEAD
        event = chunked(delta("x" * 60_000))
        for _ in range(1_000):
            yield event
            written += len(event)

    async def test(run: Running, client: Client) -> None:
        reader, writer = await client.streams()
        reader._limit = 1024  # pyright: ignore[reportAttributeAccessIssue]
        writer.write(request(hello(stream=True)))
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.3)
        assert written < 30_000_000  # of 60 MB: what sockets and our own buffers hold

    with_gateway(test, play)


def test_a_client_that_takes_nothing_is_cut_off() -> None:
    async def play(asked: Asked) -> Pieces:
        yield STREAM_HEAD
        for _ in range(1_000):
            yield chunked(delta("x" * 60_000))

    async def test(run: Running, client: Client) -> None:
        reader, writer = await client.streams()
        reader._limit = 1024  # pyright: ignore[reportAttributeAccessIssue]
        writer.write(request(hello(stream=True)))
        for _ in range(40):
            await asyncio.sleep(0.1)
            if run.fake.left:
                break
        assert run.fake.left == 1

    with_gateway(test, play, limits=Limits(write_s=0.5))


def test_a_key_that_is_revoked_in_flight_stops_its_streams_at_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("limbeck.guard.respond.LOOK_S", 0.05)

    async def play(asked: Asked) -> Pieces:
        yield STREAM_HEAD
        while True:
            yield chunked(delta("a")[:30])
            await asyncio.sleep(0.01)
            yield chunked(delta("a")[30:])

    async def test(run: Running, client: Client) -> None:
        asyncio.get_running_loop().call_later(0.2, run.accounts.holders.clear)
        got = await asyncio.wait_for(client.post(hello(stream=True)), 3)
        assert not got.whole
        events = got.body.split(b"\n\n")
        assert orjson.loads(events[-2][6:])["error"]["code"] == "invalid_api_key"
        assert all(event + b"\n\n" == delta("a") for event in events[:-2])
        assert len(events) > 3
        await eventually(lambda: run.fake.left == 1)

    for capabilities in ([], ["reasoning"]):
        with_gateway(test, play, holders={KEY: holder_of("a", plan(*capabilities))})


def test_a_key_that_is_revoked_while_the_model_thinks_gets_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("limbeck.guard.respond.LOOK_S", 0.01)

    async def play(asked: Asked) -> Pieces:
        await asyncio.sleep(0.1)
        yield whole(completion("late"))

    async def test(run: Running, client: Client) -> None:
        asyncio.get_running_loop().call_later(0.03, run.accounts.holders.clear)
        got = await client.post(hello())
        assert got.status == 401
        assert b"late" not in got.body

    with_gateway(test, play)


# Upstreams that misbehave


@pytest.mark.parametrize(
    ("wire", "status", "code"),
    [
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + completion(), HANG_UP], 502, "upstream_error"),
        ([HANG_UP], 502, "upstream_error"),
        ([b"SSH-2.0-OpenSSH_9.9\r\n"], 502, "upstream_error"),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"], 502, "upstream_error"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", HANG_UP], 502, None),
        ([whole(b"<html>")], 502, "upstream_unreadable"),
        ([whole(b"{}", headers="content-encoding: gzip\r\n")], 502, "upstream_unreadable"),
        ([whole(b"", "302 Found", "location: http://elsewhere/\r\n")], 502, "upstream_redirects"),
        ([b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n"], 502, "upstream_error"),
    ],
)  # fmt: skip
def test_an_upstream_that_lies_is_a_bad_gateway_and_no_answer(
    wire: list[bytes], status: int, code: str | None
) -> None:
    async def test(run: Running, client: Client) -> None:
        got = await asyncio.wait_for(client.post(hello()), 5)
        assert got.status == status
        if code is not None:
            assert got.code == code

    with_gateway(test, always(*wire))


def test_bytes_after_a_reply_are_nobodys_answer() -> None:
    turn = 0

    async def play(asked: Asked) -> Pieces:
        nonlocal turn
        turn += 1
        if turn == 1:
            yield whole(completion("first")) + whole(completion("planted"))
            await asyncio.sleep(0.01)
        else:
            yield whole(completion("second"))

    async def test(run: Running, client: Client) -> None:
        for said in ("first", "second"):
            got = await client.post(hello())
            assert got.json["choices"][0]["message"]["content"] == said

    with_gateway(test, play)


def test_a_kept_connection_that_was_closed_meanwhile_is_no_error() -> None:
    async def play(asked: Asked) -> Pieces:
        yield whole(completion())
        yield HANG_UP

    async def test(run: Running, client: Client) -> None:
        for _ in range(5):
            assert (await client.post(hello())).status == 200

    with_gateway(test, play)


def test_a_silent_upstream_is_a_timeout() -> None:
    async def play(asked: Asked) -> Pieces:
        await asyncio.sleep(5)
        yield b""

    async def test(run: Running, client: Client) -> None:
        got = await asyncio.wait_for(client.post(hello()), 3)
        assert (got.status, got.code) == (504, "upstream_timeout")

    with_gateway(test, play, patience=Patience(first_byte_s=0.2))


def test_an_upstream_that_is_away_is_said_so_and_asked_again_later() -> None:
    async def test(run: Running, client: Client) -> None:
        run.fake.port, wanted = 0, run.fake.port
        assert wanted
        assert (await client.post(hello())).status == 200

    with_gateway(test)

    async def away() -> None:
        from guard.running import served
        from limbeck.guard.gateway import Gateway
        from limbeck.guard.memory import MemoryAccounts
        from limbeck.guard.upstream.door import read_address
        from limbeck.guard.upstream.pool import Pool

        app = Gateway(
            settings(), MemoryAccounts({KEY: holder_of("a")}), Pool(read_address("http://127.0.0.1:9"), Patience()), report=lambda frame: None
        )  # fmt: skip
        async with served(app) as (port, _), Client(port) as client:
            got = await client.post(hello())
            assert (got.status, got.code) == (502, "upstream_error")

    asyncio.run(away())


def test_more_requests_than_may_be_under_way_are_told_to_come_again() -> None:
    gate = asyncio.Event()

    async def play(asked: Asked) -> Pieces:
        await gate.wait()
        yield whole(completion())

    async def test(run: Running, client: Client) -> None:
        async with Client(run.port) as other:
            waiting = asyncio.create_task(other.post(hello()))
            await eventually(lambda: bool(run.fake.asked))
            got = await client.post(hello())
            assert (got.status, got.code) == (503, "busy")
            gate.set()
            assert (await waiting).status == 200
            assert (await client.post(hello())).status == 200

    with_gateway(test, play, setting=settings(in_flight=1))


def test_requests_beyond_the_connections_wait_for_their_turn() -> None:
    async def test(run: Running, client: Client) -> None:
        clients = [Client(run.port) for _ in range(20)]
        got = await asyncio.gather(*(one.post(hello()) for one in clients))
        assert [one.status for one in got] == [200] * 20
        assert run.fake.connections <= 2
        for one in clients:
            one.close()

    with_gateway(test, most=2)


def test_a_clock_that_steps_opens_and_charges_nothing_twice() -> None:
    times = iter([1.7e9, 1.7e9 - 86_400, 1.8e9, 0.0])

    async def test(run: Running, client: Client) -> None:
        run.app._clock = lambda: next(times)  # pyright: ignore[reportPrivateUsage]
        for _ in range(4):
            assert (await client.post(hello())).status == 200
        assert len(run.facts) == 4

    with_gateway(
        test,
        holders={KEY: holder_of("a", plan(budgets=(Budget(Measure.REQUESTS, Window.DAY, 1),)))},
    )


def test_health_and_readiness_are_told_apart() -> None:
    async def test(run: Running, client: Client) -> None:
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 200
        run.app.draining = True
        assert (await client.get("/healthz")).status == 200
        got = await client.get("/readyz")
        assert (got.status, got.code) == (503, "not_ready")

    with_gateway(test)


def test_metrics_say_that_the_keeper_is_away() -> None:
    async def away() -> bytes:
        raise ConnectionError

    async def test(run: Running, client: Client) -> None:
        got = await client.get("/metrics")
        assert (got.status, got.code) == (503, "keeper_away")

    with_gateway(test, metrics=away)


def test_a_new_setting_holds_for_new_requests_and_streams_go_on() -> None:
    gate = asyncio.Event()

    async def play(asked: Asked) -> Pieces:
        yield STREAM_HEAD + chunked(delta("a"))
        await gate.wait()
        yield chunked(b"data: [DONE]\n\n") + END

    async def test(run: Running, client: Client) -> None:
        stream = asyncio.create_task(client.post(hello(stream=True)))
        await eventually(lambda: bool(run.fake.asked))
        run.app.replace(settings(models={"new": ServedModel("new", "new")}))
        async with Client(run.port) as other:
            assert (await other.post(hello())).code == "model_not_found"
        gate.set()
        got = await stream
        assert got.whole
        assert got.body.endswith(b"data: [DONE]\n\n")

    with_gateway(test, play)


def test_names_that_a_caller_makes_up_cannot_write_headers() -> None:
    async def test(run: Running, client: Client) -> None:
        got = await client.post(hello(**{"a\r\nx-planted: 1": 1, "fine_name": 2}))
        assert got.status == 200
        assert got.header("x-planted") is None
        assert got.header("x-limbeck-removed") == "?, fine_name"

    with_gateway(test, setting=settings(sealing=Sealing("drop", "drop")))
