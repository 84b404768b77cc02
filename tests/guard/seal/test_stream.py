"""Streams: no byte of reasoning leaves wherever they are cut, and what hides nothing leaves as it came."""

from collections import defaultdict
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.reasoned import HIDDEN, chat_streams, chunk, event, leaks
from limbeck.guard.seal.stream import MOST_HELD, SealedStream
from limbeck.guard.seal.tags import Tags
from limbeck.guard.sse import DONE, Events, payload

TAGS = Tags()
patient = settings(deadline=None)
CHAT, RESPONSES, COMPLETIONS = "/v1/chat/completions", "/v1/responses", "/v1/completions"


def sealed(stream: bytes, size: int | None = 1, path: str = CHAT, **more: Any) -> bytes:
    """Seal a stream that arrives in pieces of `size` bytes."""
    seal = SealedStream(path, TAGS, **more)
    size = size or len(stream) or 1
    return (
        b"".join(seal.feed(stream[at : at + size]) for at in range(0, len(stream), size))
        + seal.finish()
    )


def texts(stream: bytes) -> dict[tuple[int, str], str]:
    """Read a stream as a client does."""
    found: defaultdict[tuple[int, str], str] = defaultdict(str)
    for one in Events().feed(stream):
        data = payload(one)
        if data is None or data == DONE:
            continue
        for choice in orjson.loads(data)["choices"]:
            delta = choice["delta"]
            found[choice["index"], "content"] += delta.get("content") or ""
            for call in delta.get("tool_calls", []):
                found[choice["index"], "arguments"] += call["function"]["arguments"]
    return {key: text for key, text in found.items() if text}


@patient
@given(chat_streams(), st.booleans())
def test_no_byte_of_reasoning_leaves_a_stream_that_is_split_at_every_byte(
    made: tuple[bytes, dict[tuple[int, str], str]], logprobs: bool
) -> None:
    stream, shown = made
    out = sealed(stream, 1, logprobs=logprobs)
    assert not leaks(out)
    assert texts(out) == {key: text for key, text in shown.items() if text}
    assert out.endswith(b"data: [DONE]\n\n")


@patient
@given(chat_streams(), st.integers(2, 400))
def test_nor_one_that_is_split_anywhere(
    made: tuple[bytes, dict[tuple[int, str], str]], size: int
) -> None:
    stream, _ = made
    assert sealed(stream, size) == sealed(stream, 1)


@patient
@given(chat_streams(clean=True), st.integers(1, 400))
def test_a_stream_that_hides_nothing_leaves_byte_for_byte(
    made: tuple[bytes, dict[tuple[int, str], str]], size: int
) -> None:
    stream, _ = made
    assert sealed(stream, size, logprobs=True) == stream


@patient
@given(chat_streams(), st.integers(0, 2000), st.integers(1, 50))
def test_a_stream_that_breaks_off_leaks_nothing_and_ends_at_an_event(
    made: tuple[bytes, dict[tuple[int, str], str]], end: int, size: int
) -> None:
    stream, _ = made
    seal = SealedStream(CHAT, TAGS)
    broken = stream[: end % len(stream)]
    out = b"".join(seal.feed(broken[at : at + size]) for at in range(0, len(broken), size))
    assert not leaks(out)
    assert out == b"" or out.endswith(b"\n\n")


def test_each_event_leaves_as_soon_as_nothing_of_it_can_be_hidden() -> None:
    seal = SealedStream(CHAT, TAGS)
    plain, begun, on = (event(chunk(0, {"content": text})) for text in ("a", "1 <", " 2"))
    assert seal.feed(plain) == plain
    assert seal.feed(begun) == b""
    assert seal.feed(on) == begun + on


def test_a_beginning_that_never_becomes_a_mark_does_not_hold_a_stream_for_ever() -> None:
    others = [event(chunk(1, {"content": "x"}))] * (3 * MOST_HELD)
    stream = b"".join(
        [
            event(chunk(0, {"content": "a <"})),
            *others,
            event(chunk(0, {"content": " b"})),
            b"data: [DONE]\n\n",
        ]
    )
    seal = SealedStream(CHAT, TAGS)
    early = seal.feed(stream[: len(stream) // 2])
    assert early
    late = seal.feed(stream[len(stream) // 2 :]) + seal.finish()
    assert texts(early + late) == {(0, "content"): "a < b", (1, "content"): "x" * 3 * MOST_HELD}


def test_a_held_beginning_leaves_at_the_end_even_when_its_event_is_gone() -> None:
    others = [event(chunk(1, {"content": "x"}))] * (2 * MOST_HELD)
    stream = b"".join([event(chunk(0, {"content": "a <"})), *others, b"data: [DONE]\n\n"])
    assert texts(sealed(stream, None))[0, "content"] == "a <"


def test_an_answer_that_begins_inside_its_reasoning_is_hidden_up_to_the_mark() -> None:
    stream = b"".join(event(chunk(0, {"content": text})) for text in ("QX", "Z</th", "ink>", "yes"))
    assert texts(sealed(stream, 1, within="<think>")) == {(0, "content"): "yes"}


def test_what_cannot_be_read_does_not_leave() -> None:
    assert (
        sealed(b"data: {QQ\n\ndata: [1]\n\n: " + b"Q" * 500 + b"\n\ndata: [DONE]\n\n")
        == b"data: [DONE]\n\n"
    )


def test_the_usage_of_a_stream_is_noted() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    seal = SealedStream(CHAT, TAGS)
    last = event({**chunk(0, {}), "choices": [], "usage": usage})
    assert seal.feed(last) == last
    assert seal.usage == usage


def said(kind: str, **more: Any) -> bytes:
    data = {"type": kind, "sequence_number": 1, "output_index": 0, **more}
    return b"event: " + kind.encode() + b"\n" + event(data)


@patient
@given(HIDDEN, st.integers(1, 300))
def test_the_responses_api_hides_reasoning_in_all_its_events(hidden: str, size: int) -> None:
    thought = {
        "type": "reasoning",
        "id": "r",
        "summary": [{"type": "summary_text", "text": hidden}],
        "encrypted_content": hidden,
    }
    part = {"type": "output_text", "text": f"<think>{hidden}</think>yes", "annotations": []}
    item = {"type": "message", "id": "i", "role": "assistant", "content": [part]}
    text = {"item_id": "i", "content_index": 0}
    stream = b"".join(
        [
            said("response.created", response={"id": "x", "output": [], "status": "in_progress"}),
            said("response.output_item.added", item=thought),
            said("response.reasoning_text.delta", item_id="r", delta=hidden),
            said("response.reasoning_summary_text.done", item_id="r", text=hidden),
            said("response.content_part.added", part={"type": "reasoning_text", "text": hidden}),
            said("response.output_text.delta", **text, delta="<th"),
            said("response.output_text.delta", **text, delta=f"ink>{hidden}", logprobs=[{"token": hidden, "logprob": 0}]),
            said("response.output_text.delta", **text, delta="</think>ye"),
            said("response.output_text.delta", **text, delta="s"),
            said("response.output_text.done", **text, text=part["text"]),
            said("response.function_call_arguments.delta", item_id="f", delta=f"{{<think>{hidden}</think>}}"),
            said("response.output_item.done", item=item),
            said("response.novelty", text=hidden),
            said("response.completed", response={"id": "x", "output": [thought, item], "usage": {"input_tokens": 1}}),
        ]
    )  # fmt: skip
    out = sealed(stream, size, RESPONSES, logprobs=True)
    assert not leaks(out)
    read = [orjson.loads(payload(one) or b"null") for one in Events().feed(out)]
    assert (
        "".join(one["delta"] for one in read if one["type"] == "response.output_text.delta")
        == "yes"
    )
    (done,) = [one for one in read if one["type"] == "response.completed"]
    assert [item["type"] for item in done["response"]["output"]] == ["message"]
    assert done["response"]["output"][0]["content"][0]["text"] == "yes"


def test_text_completions_are_sealed_too() -> None:
    def one(text: str) -> bytes:
        return event(
            {
                "id": "c",
                "object": "text_completion",
                "choices": [{"index": 0, "text": text, "logprobs": None}],
            }
        )

    out = sealed(
        one("a<thi") + one("nk>QXZ</think>") + one("b") + b"data: [DONE]\n\n", 3, COMPLETIONS
    )
    assert not leaks(out)
    shown = [orjson.loads(payload(e) or b"")["choices"][0]["text"] for e in Events().feed(out)[:-1]]
    assert "".join(shown) == "ab"
