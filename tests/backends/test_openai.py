import asyncio
import importlib.metadata
import socket
import time
from collections.abc import Mapping

import pytest

from fakeapi import FakeApi, Json, Said, message, serve
from limbeck.backends.ask import chat_ask
from limbeck.backends.openai import Connection, Endpoint, host_of, model_name
from limbeck.backends.reply import Again, Answered, Outcome, Stop
from limbeck.chat import Message
from limbeck.errors import RecipeError, RefusedError, TeacherError

KEY = "sk-very-secret-0123456789"
ASK = chat_ask("m", (Message("user", "Hi"),), max_tokens=5, temperature=1)


def send(
    url: str, environment: Mapping[str, str] | None = None, *, timeout_s: float = 10
) -> Outcome:
    async def once() -> Outcome:
        endpoint = Endpoint(url, "m", timeout_s=timeout_s)
        async with Connection(endpoint, environment or {}) as connection:
            return await connection.send(ASK)

    return asyncio.run(once())


def ok(body: Json, number: int) -> Json:
    return message("Hello")


def asked_with_key(said: Said) -> tuple[Outcome, FakeApi]:
    with serve(lambda body, number: said) as api:
        return send(api.url, {"OPENAI_API_KEY": KEY}), api


def test_a_request_says_who_asks_and_carries_the_key_where_there_is_one() -> None:
    with serve(ok) as api:
        assert isinstance(send(api.url), Answered)
        assert isinstance(send(api.url + "/", {"OPENAI_API_KEY": KEY}), Answered)
    plain, keyed = api.headers
    assert plain["user-agent"] == f"limbeck/{importlib.metadata.version('limbeck')}"
    assert "authorization" not in plain
    assert keyed["authorization"] == f"Bearer {KEY}"
    assert [r["path"] for r in api.requests] == ["/v1/chat/completions"] * 2


def test_the_key_shows_in_no_repr() -> None:
    connection = Connection(Endpoint("http://x/v1", "m"), {"OPENAI_API_KEY": KEY})
    assert KEY not in repr(connection) + str(connection) + repr(connection.endpoint)


def test_a_server_that_repeats_the_key_does_not_get_it_into_an_error() -> None:
    outcome, _ = asked_with_key(Said({"error": {"message": f"Incorrect key: {KEY}."}}, status=401))
    assert isinstance(outcome, Stop)
    assert isinstance(outcome.error, RefusedError)
    assert KEY not in str(outcome.error)
    assert "Incorrect key: [key]" in str(outcome.error)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "Schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(TeacherError, match="OPENAI_API_KEY") as caught:
        Connection(Endpoint("http://x/v1", "m"), {"OPENAI_API_KEY": key})
    assert not key or key not in str(caught.value)


def test_a_missing_key_is_named_when_the_server_wants_one() -> None:
    with serve(lambda body, number: Said({"error": "no key"}, status=401)) as api:
        outcome = send(api.url)
    assert isinstance(outcome, Stop)
    assert "OPENAI_API_KEY is not set" in str(outcome.error)


@pytest.mark.parametrize("cut", [0, 30])
def test_a_line_that_breaks_within_an_answer_is_asked_again(cut: int) -> None:
    outcome, _ = asked_with_key(Said(message("Hello"), cut=cut))
    assert isinstance(outcome, Again)
    assert outcome.lost
    assert "broke off" in outcome.why


def test_nobody_there_is_asked_again_and_cost_nothing() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcome = send(f"http://127.0.0.1:{port}/v1")
    assert isinstance(outcome, Again)
    assert "cannot be reached" in outcome.why
    assert not outcome.lost


def test_patience_ends() -> None:
    def slow(body: Json, number: int) -> Json:
        time.sleep(0.5)
        return message("late")

    with serve(slow) as api:
        outcome = send(api.url, timeout_s=0.1)
    assert isinstance(outcome, Again)
    assert "timeout_s = 0.1" in outcome.why
    assert outcome.lost


def test_a_redirect_does_not_take_the_key_along() -> None:
    with serve(ok) as other:
        elsewhere = {"Location": f"{other.url}/chat/completions"}
        outcome, _ = asked_with_key(Said({}, status=307, headers=elsewhere))
    assert isinstance(outcome, Stop)
    assert not other.requests


def test_an_endpoint_with_a_secret_in_its_address_is_refused() -> None:
    with pytest.raises(RecipeError, match="key_variable"):
        Endpoint("https://user:pass@x/v1", "m")


def test_a_model_behind_an_api_has_its_prefix() -> None:
    assert model_name("openai:org/m:free") == "org/m:free"
    assert model_name("packaged:m") is None
    with pytest.raises(RecipeError, match="needs the server's name"):
        model_name("openai:")


def test_records_name_the_host_alone() -> None:
    assert host_of(Endpoint("https://api.example.com:8443/v1", "m")) == "api.example.com:8443"
