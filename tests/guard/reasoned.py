"""Replies with reasoning in every place where it has been seen, and the text that should be left."""

from typing import Any

import orjson
from hypothesis import strategies as st

from limbeck.guard.seal.tags import PAIRS

LETTERS = "QZXJ"
"""Letters that only reasoning is written in, so that one of them anywhere is a leak."""
OPEN_TEXT = st.text("ab <>/[|]thinkend\né", max_size=12)
HIDDEN = st.text(LETTERS + "<>/ ", min_size=1, max_size=12).filter(
    lambda text: set(text) & set(LETTERS)
)
NAMES = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "thinking_blocks",
    "reasoning_details",
    "token_ids",
    "new_field",
)


def leaks(data: bytes) -> bool:
    """Return whether any letter of the secret is in the data, as itself or as the number of a byte."""
    return any(
        letter.encode() in data or b"\\u%04x" % ord(letter) in data for letter in LETTERS
    ) or any(b"[%d" % ord(letter) in data or b",%d," % ord(letter) in data for letter in LETTERS)


@st.composite
def marked(draw: st.DrawFn, *, clean: bool = False) -> tuple[str, str]:
    """Draw a text with marked reasoning in it, and what of it may be seen."""
    whole, shown = "", ""
    for _ in range(draw(st.integers(1, 3))):
        said = draw(OPEN_TEXT)
        if _marks(shown + said):
            continue
        whole, shown = whole + said, shown + said
        if not clean and draw(st.booleans()) and not _half(shown):
            opening, closing = draw(st.sampled_from(PAIRS))
            hidden = draw(HIDDEN)
            whole += (opening.upper() if draw(st.booleans()) else opening) + hidden + closing
    return whole, shown


def _marks(text: str) -> bool:
    return any(mark.lower() in text.lower() for pair in PAIRS for mark in pair)


def _half(text: str) -> bool:
    return any(
        text.lower().endswith(mark[:n].lower())
        for pair in PAIRS
        for mark in pair
        for n in range(1, len(mark))
    )


def event(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def chunk(index: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }


def pieces(draw: st.DrawFn, text: str) -> list[str]:
    """Cut a text into the deltas of a stream."""
    edges = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *edges], [*edges, len(text)], strict=True)]


@st.composite
def chat_streams(
    draw: st.DrawFn, *, clean: bool = False
) -> tuple[bytes, dict[tuple[int, str], str]]:
    """Draw a stream of chat chunks, and the text of each of its channels that may be seen."""
    queues: list[list[dict[str, Any]]] = []
    shown: dict[tuple[int, str], str] = {}
    for index in range(draw(st.integers(1, 3))):
        whole, open_text = draw(marked(clean=clean))
        shown[index, "content"] = open_text
        queue = [chunk(index, {"role": "assistant", "content": ""})]
        if not clean:
            queue += [
                chunk(index, {draw(st.sampled_from(NAMES)): draw(HIDDEN)})
                for _ in range(draw(st.integers(0, 2)))
            ]
        for piece in pieces(draw, whole):
            entry = {
                "token": piece,
                "logprob": -1.0,
                "bytes": list(piece.encode()),
                "top_logprobs": [],
            }
            queue.append(
                chunk(
                    index,
                    {"content": piece},
                    logprobs={"content": [entry]} if draw(st.booleans()) else None,
                )
            )
        if draw(st.booleans()):
            arguments, open_arguments = draw(marked(clean=clean))
            shown[index, "arguments"] = open_arguments
            for piece in pieces(draw, arguments):
                call = {"index": 0, "function": {"arguments": piece}}
                queue.append(chunk(index, {"tool_calls": [call]}))
        queue.append(chunk(index, {}, finish_reason="stop"))
        queues.append(queue)
    written: list[bytes] = []
    while any(queues):
        queue = draw(st.sampled_from([one for one in queues if one]))
        written.append(event(queue.pop(0)))
        if draw(st.integers(0, 9)) == 0:
            written.append(b": ping\n\n")
    return b"".join([*written, b"data: [DONE]\n\n"]), shown
