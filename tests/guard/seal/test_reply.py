"""Whole replies and errors."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.reasoned import HIDDEN, NAMES, leaks, marked
from limbeck.guard.seal.reply import seal_error, seal_reply
from limbeck.guard.seal.tags import Tags

TAGS = Tags()
patient = settings(deadline=None)
CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/completions",
    "/v1/embeddings",
)


def spelled(text: str) -> dict[str, Any]:
    return {
        "content": [
            {"token": c, "logprob": -1.5, "bytes": list(c.encode()), "top_logprobs": []}
            for c in text
        ]
    }


def reply(*choices: dict[str, Any], **more: Any) -> bytes:
    usage = {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "completion_tokens_details": {"reasoning_tokens": 9},
    }
    return orjson.dumps(
        {"id": "c", "object": "chat.completion", "choices": list(choices), "usage": usage, **more}
    )


@patient
@given(st.data(), st.booleans())
def test_no_byte_of_reasoning_is_in_any_choice(data: st.DataObject, logprobs: bool) -> None:
    choices: list[dict[str, Any]] = []
    shown: list[tuple[str, str]] = []
    for index in range(data.draw(st.integers(1, 3))):
        content, open_content = data.draw(marked())
        arguments, open_arguments = data.draw(marked())
        call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}
        message: dict[str, Any] = {"role": "assistant", "content": content, "tool_calls": [call]}
        for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=2)):
            hidden = data.draw(HIDDEN)
            message[name] = data.draw(
                st.sampled_from([hidden, [hidden], {"text": hidden}, list(hidden.encode())])
            )
        tokens = data.draw(HIDDEN) + content if data.draw(st.booleans()) else content
        choices.append(
            {
                "index": index,
                "message": message,
                "finish_reason": "stop",
                "logprobs": spelled(tokens),
            }
        )
        if data.draw(st.booleans()):
            choices[-1][data.draw(st.sampled_from(NAMES))] = data.draw(HIDDEN)
        shown.append((open_content, open_arguments))
    more = (
        {data.draw(st.sampled_from(NAMES)): data.draw(HIDDEN)} if data.draw(st.booleans()) else {}
    )
    sealed = seal_reply(reply(*choices, **more), CHAT, TAGS, logprobs=logprobs)
    assert sealed is not None
    assert not leaks(sealed.body)
    read = orjson.loads(sealed.body)
    assert read["usage"]["completion_tokens_details"]["reasoning_tokens"] == 9
    for choice, (content, arguments) in zip(read["choices"], shown, strict=True):
        assert choice["message"]["content"] == content
        assert choice["message"]["tool_calls"][0]["function"]["arguments"] == arguments


@patient
@given(marked(clean=True), st.booleans())
def test_a_reply_that_hides_nothing_leaves_byte_for_byte(
    made: tuple[str, str], spaced: bool
) -> None:
    text, _ = made
    body = reply({"index": 0, "message": {"role": "assistant", "content": text, "reasoning_content": None}, "logprobs": spelled(text), "finish_reason": "stop"}, timings={"ms": 1.5})  # fmt: skip
    if spaced:
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)
    sealed = seal_reply(body, CHAT, TAGS, logprobs=True)
    assert sealed is not None
    assert sealed.body is body


def test_log_probabilities_stay_behind_where_the_plan_does_not_grant_them() -> None:
    body = reply(
        {"index": 0, "message": {"role": "assistant", "content": "hi"}, "logprobs": spelled("hi")}
    )
    sealed = seal_reply(body, CHAT, TAGS)
    assert sealed is not None
    assert sealed.reply["choices"][0]["logprobs"] is None


def test_legacy_log_probabilities_of_hidden_tokens_stay_behind() -> None:
    logprobs = {
        "tokens": ["QX", "hi"],
        "token_logprobs": [-1, -1],
        "top_logprobs": None,
        "text_offset": [0, 2],
    }
    body = reply({"index": 0, "text": "hi", "logprobs": logprobs})
    sealed = seal_reply(body, COMPLETIONS, TAGS, logprobs=True)
    assert sealed is not None
    assert not leaks(sealed.body)


def test_parts_of_a_message_that_are_thoughts_stay_behind() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "QX"}]},
        {"type": "text", "text": "hi"},
    ]
    sealed = seal_reply(
        reply({"index": 0, "message": {"role": "assistant", "content": parts}}), CHAT, TAGS
    )
    assert sealed is not None
    assert sealed.reply["choices"][0]["message"]["content"] == [{"type": "text", "text": "hi"}]


@patient
@given(HIDDEN)
def test_the_responses_api_hides_reasoning_items(hidden: str) -> None:
    output = [
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": hidden}]},
        {"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": f"<think>{hidden}</think>yes", "logprobs": [{"token": hidden, "logprob": 0}]}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": f"<think>{hidden}</think>{{}}"},
        {"type": "novelty", "text": hidden},
    ]  # fmt: skip
    body = orjson.dumps(
        {
            "id": "r",
            "object": "response",
            "instructions": "Q is allowed",
            "output": output,
            "error": {"message": f"<think>{hidden}"},
        }
    )
    sealed = seal_reply(body, RESPONSES, TAGS, logprobs=True)
    assert sealed is not None
    assert sealed.reply.pop("instructions") == "Q is allowed"
    assert not leaks(orjson.dumps(sealed.reply))
    assert [item["type"] for item in sealed.reply["output"]] == ["message", "function_call"]


@patient
@given(HIDDEN, st.sampled_from(NAMES))
def test_errors_hide_reasoning_too(hidden: str, name: str) -> None:
    error = {
        "message": f"stopped at <think>{hidden}",
        "type": "server_error",
        "code": 500,
        name: hidden,
    }
    for body in (
        {"error": error},
        {"object": "error", **error},
        {"detail": [error]},
        {"error": "x", name: [hidden]},
    ):
        out = seal_error(orjson.dumps(body), TAGS)
        assert out is not None
        assert (not leaks(out)) or name not in (
            "reasoning_content",
            "reasoning",
            "thinking",
            "thinking_blocks",
            "reasoning_details",
        )
    out = seal_error(f"<p>oops <think>{hidden}</p>".encode(), TAGS)
    assert out == b"<p>oops "


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"no","type":"x","param":null,"code":"y"}}',
        b'{"detail":"Not Found"}',
        b"Internal Server Error",
        b'{ "object":"error", "message":"m" }',
    ],
)
def test_plain_errors_leave_byte_for_byte(body: bytes) -> None:
    assert seal_error(body, TAGS) == body


@pytest.mark.parametrize("body", [b"", b"QQ", b"[1]", b'{"choices": [', b"\xff"])
def test_a_reply_that_cannot_be_read_is_not_let_out(body: bytes) -> None:
    assert seal_reply(body, CHAT, TAGS) is None


def test_embeddings_are_numbers_and_pass() -> None:
    body = b'{"data": [{"embedding": [0.1, 0.2]}], "usage": {"prompt_tokens": 3}}'
    sealed = seal_reply(body, EMBEDDINGS, TAGS)
    assert sealed is not None
    assert sealed.body is body
