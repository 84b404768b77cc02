"""A server's prompt log-probabilities, in both dialects, and what is said where there are none."""

from typing import Any

import pytest

from fakeapi import Json, Said, serve
from limbeck.backends.prompt_logprobs import PromptLogprobs
from limbeck.errors import ScoringError, TraceError
from limbeck.trace.coins import Pair
from limbeck.tracing import ServedWeigher

PAIR = Pair("Say hello.", "hello", "good day")


def value(text: str) -> float:
    return -float(len(text))


def chat(body: Json, number: int) -> Json:
    """Speak vLLM's dialect: one place for each turn's text, none for the first token."""
    places: list[Any] = [None]
    places += [{"7": {"logprob": value(m["content"]), "rank": 3}} for m in body["messages"]]
    return {"model": "m", "choices": [{"message": {"content": "x"}}], "prompt_logprobs": places}


def echo(body: Json, number: int) -> Json | Said:
    """Speak the older dialect: tokens are lines, and one more is written."""
    if "messages" in body:
        return Said({"error": {"message": "unknown field"}}, status=400)
    lines = body["prompt"].split("\n")
    starts = [sum(len(x) + 1 for x in lines[:i]) for i in range(len(lines))]
    logprobs = {
        "token_logprobs": [None, *(value(line) for line in lines[1:]), -99.0],
        "text_offset": [*starts, len(body["prompt"])],
    }
    return {"choices": [{"text": body["prompt"] + "!", "logprobs": logprobs}]}


def silent(body: Json, number: int) -> Json:
    return {"choices": [{"text": "hello", "message": {"content": "hello"}}]}


def test_a_chat_that_holds_the_answer_is_scored_with_the_servers_template():
    with serve(chat) as api:
        found = ServedWeigher(f"openai:m@{api.url}").leans([PAIR, PAIR])
        assert found[0] == found[1]
        assert found[0][1] - found[0][0] == value(PAIR.y1) - value(PAIR.y0)
        body = api.requests[0]
        assert [m["role"] for m in body["messages"]] == ["user", "assistant"]
        assert body["add_generation_prompt"] is False
        assert {r["path"] for r in api.requests} == {"/v1/chat/completions"}


def test_a_server_of_the_older_dialect_is_asked_in_it_and_what_it_writes_is_left_out():
    with serve(echo) as api:
        (found,) = ServedWeigher(f"openai:m@{api.url}").leans([PAIR])
        assert found == (value(PAIR.y0), value(PAIR.y1))
        # The dialect is settled with the first text.
        assert [r["path"] for r in api.requests].count("/v1/chat/completions") == 1


def test_a_server_without_log_probabilities_names_the_test_that_remains():
    with serve(silent) as api, pytest.raises(TraceError, match="audit of its text alone"):
        ServedWeigher(f"openai:m@{api.url}").leans([PAIR])


def test_a_refusal_stops_the_audit():
    def refuse(body: Json, number: int) -> Said:
        return Said({"error": {"message": "no"}}, status=401)

    with serve(refuse) as api, pytest.raises(ScoringError, match="HTTP 401"):
        PromptLogprobs(f"openai:m@{api.url}").weigh([("p", "a")])


def test_a_spec_without_an_address_is_refused():
    with pytest.raises(ScoringError, match="openai:NAME@URL"):
        PromptLogprobs("openai:m")
