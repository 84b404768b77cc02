import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakeapi import message
from limbeck.backends.ask import Ask, chat_ask, score_ask
from limbeck.backends.reply import Again, Answered, Outcome, Reply, Stop, read_reply, same_model
from limbeck.chat import Choice, Completion, Message
from limbeck.errors import RefusedError, TeacherError

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
ASK = chat_ask("m", (Message("user", "Hi"),), max_tokens=5, temperature=1)
TOP = chat_ask("m", (Message("user", "Hi"),), max_tokens=5, temperature=1, top_logprobs=2)
SCORE = score_ask("m", [1, 2, 3], prompt_logprobs=2)


def read(
    body: Any, status: int = 200, ask: Ask = ASK, served_as: str | None = None, **headers: str
) -> Outcome:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return read_reply(
        ask, Reply(status, named, data), where="http://x/v1", served_as=served_as, now=NOW
    )


def answer(outcome: Outcome) -> Completion:
    assert isinstance(outcome, Answered)
    return outcome.completion


def stop(outcome: Outcome) -> TeacherError:
    assert isinstance(outcome, Stop)
    return outcome.error


def again(outcome: Outcome) -> Again:
    assert isinstance(outcome, Again)
    return outcome


def test_an_answer_is_read() -> None:
    assert answer(read(message("Hello there"))) == Completion("Hello there", "stop", "m", 10, 3)


def test_an_answer_without_usage_counts_nothing() -> None:
    said = answer(read(message("Hello", usage=None)))
    assert (said.prompt_tokens, said.completion_tokens) == (None, None)


@pytest.mark.parametrize("finish", ["stop", "eos", "eos_token", "end_turn"])
def test_servers_words_for_an_end_are_one(finish: str) -> None:
    assert answer(read(message("a", finish=finish))).finish == "stop"


def test_an_answer_that_does_not_say_how_it_ended_did_not_end_by_itself() -> None:
    body = message("a")
    body["choices"][0]["finish_reason"] = None
    assert answer(read(body)).finish == "unknown"


@pytest.mark.parametrize("body", [message(None), message(""), message("") | {"choices": []}])
def test_an_empty_choice_is_an_answer_without_text(body: Any) -> None:
    assert answer(read(body)).text == ""


def test_half_a_surrogate_pair_becomes_a_sign_that_can_be_written() -> None:
    raw = json.dumps(message("x")).replace('"x"', '"a\\ud83d"').encode()
    assert answer(read(raw)).text == "a\ufffd"


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_half_a_response_is_asked_again_and_may_have_cost(cut: int) -> None:
    data = json.dumps(message("Hello")).encode()
    assert again(read(data[:-cut])).lost


@pytest.mark.parametrize("body", [[], {"model": "m"}, {"model": "m", "choices": [3]}, 7, None])
def test_json_that_is_no_reply_is_asked_again(body: Any) -> None:
    assert "no form of the protocol" in again(read(body)).why


def test_a_page_instead_of_json_stops_and_shows_what_it_says() -> None:
    page = b"<!DOCTYPE html><html><head><style>p{}</style></head><body><h1>Welcome to nginx</h1>"
    error = stop(read(page, content_type="text/html"))
    assert "Welcome to nginx" in str(error)
    assert "/v1" in str(error)


def test_a_gateways_error_page_is_asked_again_and_shows_what_it_says() -> None:
    heard = again(read(b"<html><h1>502 Bad Gateway</h1></html>", status=502))
    assert "502 Bad Gateway" in heard.why
    assert heard.lost


def test_an_error_inside_a_success_is_an_error() -> None:
    assert again(read({"error": {"code": 503, "message": "overloaded"}})).why.endswith("overloaded")
    assert isinstance(stop(read({"error": {"code": 402, "message": "pay"}})), RefusedError)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_no_is_obeyed_and_repeated_to_the_user(status: int) -> None:
    error = stop(read({"error": {"message": "Distillation is not what we sell."}}, status=status))
    assert isinstance(error, RefusedError)
    assert "Distillation is not what we sell" in str(error)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "insufficient_quota", "message": "You exceeded it."}},
        {"error": {"message": "You exceeded your current quota, please check your plan."}},
        {"detail": "This account is not allowed to use the model for training."},
        {"error": "access denied by policy"},
    ],
)
def test_a_429_that_means_no_is_obeyed(body: Any) -> None:
    assert isinstance(stop(read(body, status=429)), RefusedError)


def test_a_429_that_means_later_waits_as_long_as_the_server_asks() -> None:
    body = {"error": {"message": "Rate limit reached for m: Limit 30000, Used 29000."}}
    assert again(read(body, status=429, retry_after="7")).after == 7
    dated = again(read(body, status=429, retry_after="Tue, 24 Nov 2026 12:01:30 GMT"))
    assert dated.after == 90
    assert again(read(body, status=429, retry_after="soon")).after is None
    assert again(read(body, status=429, retry_after="Mon, 23 Nov 2026 12:00:00 GMT")).after == 0


def test_a_rate_limit_that_advertises_a_larger_one_means_later() -> None:
    said = "Rate limit reached: 3 / min. Please add a payment method to increase your rate limit."
    body = {"error": {"code": "rate_limit_exceeded", "type": "requests", "message": said}}
    assert again(read(body, status=429)).why.endswith("increase your rate limit")
    body["error"]["message"] = "Your use was suspended."
    assert isinstance(stop(read(body, status=429)), RefusedError)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 529])
def test_a_busy_server_is_asked_again(status: int) -> None:
    assert again(read({"error": "busy"}, status=status, retry_after="3")).after == 3


def test_a_server_that_says_do_not_retry_is_believed() -> None:
    assert isinstance(stop(read({}, status=500, x_should_retry="false")), TeacherError)


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_wrong_request_stops_with_the_servers_words(status: int) -> None:
    error = stop(read({"error": {"message": "model m does not exist"}}, status=status))
    assert "model m does not exist" in str(error)
    assert not isinstance(error, RefusedError)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "context_length_exceeded", "message": "too much"}},
        {"message": "This model's maximum context length is 2048 tokens.", "object": "error"},
        {"error": {"type": "exceed_context_size_error", "message": "the request is large"}},
    ],
)
def test_a_prompt_beyond_the_context_is_an_answer_without_text_that_cost_nothing(body: Any) -> None:
    said = answer(read(body, status=400))
    assert (said.finish, said.text, said.prompt_tokens) == ("beyond_context", "", 0)


def test_redirects_are_not_followed() -> None:
    assert "https://other/v1" in str(stop(read(b"", status=307, location="https://other/v1")))


def test_another_models_name_stops() -> None:
    error = stop(read(message("Hi", model="cheaper")))
    assert "cheaper" in str(error)
    assert 'served_as = "cheaper"' in str(error)
    assert answer(read(message("Hi", model="cheaper"), served_as="cheaper")).model == "cheaper"


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("gpt-x", True),
        ("gpt-x-2026-08-06", True),
        ("gpt-x-0613", True),
        ("gpt-x@main", True),
        ("gpt-x-mini", False),
        ("gpt-x-mini-2026-08-06", False),
        ("gpt-xl", False),
        ("gpt", False),
    ],
)
def test_a_snapshot_is_the_same_model_and_a_sibling_is_not(said: str, same: bool) -> None:
    assert same_model("gpt-x", said, None) is same


def place(token: str, logprob: float, top: list[tuple[str, float]]) -> dict[str, Any]:
    entries = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in top]
    return {"token": token, "logprob": logprob, "bytes": None, "top_logprobs": entries}


def test_likely_tokens_are_read_in_falling_order() -> None:
    body = message("ab")
    body["choices"][0]["logprobs"] = {
        "content": [place("ab", -0.5, [("x", -2.0), ("ab", -0.5), ("never", -9999.0)])]
    }
    said = answer(read(body, ask=TOP))
    assert said.choices == (Choice(b"ab", -0.5, ((b"ab", -0.5), (b"x", -2.0))),)


def test_bytes_go_before_the_token_that_shows_them() -> None:
    body = message("\u00e9")
    item = place("\ufffd", -1.0, []) | {"bytes": [0xC3]}
    body["choices"][0]["logprobs"] = {"content": [item]}
    choices = answer(read(body, ask=TOP)).choices
    assert choices is not None
    assert choices[0].token == b"\xc3"


@pytest.mark.parametrize("logprobs", [None, {}, {"content": []}, {"content": None}])
def test_no_logprobs_though_asked_stops_and_says_what_to_do(logprobs: Any) -> None:
    body = message("ab")
    body["choices"][0]["logprobs"] = logprobs
    error = stop(read(body, ask=TOP))
    assert "gives none" in str(error)
    assert 'loss.kind = "cross_entropy"' in str(error)


def test_an_empty_answer_needs_no_logprobs() -> None:
    assert answer(read(message(""), ask=TOP)).choices == ()


def scored(scores: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"text": "x", "prompt_logprobs": scores}]}


def test_scores_are_read_by_id() -> None:
    entry = {"2": {"logprob": -1.5, "decoded_token": "b"}, "9": {"logprob": -0.5}}
    said = answer(read(scored([None, entry, entry]), ask=SCORE))
    assert said.prompt == (((9, -0.5, ""), (2, -1.5, "b")),) * 2


def test_no_scores_though_asked_stops() -> None:
    assert "vLLM" in str(stop(read(scored(None), ask=SCORE)))


def test_scores_for_another_number_of_tokens_are_asked_again() -> None:
    assert "2 scores for 3 tokens" in again(read(scored([None, {}]), ask=SCORE)).why


@given(
    status=st.sampled_from([200, 301, 400, 401, 418, 429, 500, 503]),
    body=st.binary(max_size=300),
    after=st.text(max_size=12),
)
def test_whatever_a_server_sends_is_an_outcome(status: int, body: bytes, after: str) -> None:
    outcome = read(body, status=status, retry_after=after)
    assert isinstance(outcome, Answered | Again | Stop)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "logprobs", "error", "model", "usage"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(body=JSON, ask=st.sampled_from([ASK, TOP, SCORE]))
def test_whatever_json_a_server_sends_is_an_outcome(body: Any, ask: Ask) -> None:
    assert isinstance(read(body, ask=ask), Answered | Again | Stop)
