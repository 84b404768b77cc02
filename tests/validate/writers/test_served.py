import json
from collections.abc import Iterable
from typing import Any

import httpx2
import pytest

from limbeck.errors import ScoringError
from limbeck.validate.respond import Asked
from limbeck.validate.timing import Usage
from limbeck.validate.writers import served
from limbeck.validate.writers.served import ServedWriter

ASKED = Asked("t/1", "Say three words.", "chat", system="Be brief.")


def _events(events: Iterable[Any]) -> bytes:
    lines = [e if isinstance(e, str) else json.dumps(e) for e in events]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def _delta(text: str | None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a writer meet a server that sends what it is told."""
    client = httpx2.Client

    def against(response: httpx2.Response | Exception, seen: list[httpx2.Request]) -> ServedWriter:
        def answer(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            if isinstance(response, Exception):
                raise response
            return response

        def patched(**options: Any) -> httpx2.Client:
            return client(**options, transport=httpx2.MockTransport(answer))

        monkeypatch.setattr(served.httpx2, "Client", patched)
        return ServedWriter("m", "http://127.0.0.1:9/v1", max_new_tokens=5)

    return against


def _response(events: Iterable[Any]) -> httpx2.Response:
    return httpx2.Response(
        200, headers={"Content-Type": "text/event-stream"}, content=_events(events)
    )


def test_pieces_are_chunks_with_text_and_tokens_what_the_server_counts(stream: Any) -> None:
    counted = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
    events = [_delta(None), _delta(""), _delta("one "), _delta("two three"), counted, "[DONE]"]
    seen: list[httpx2.Request] = []
    pieces: list[int] = []
    with stream(_response(events), seen) as writer:
        assert writer.write(ASKED, lambda: pieces.append(1)) == Usage(9, 4)
    assert len(pieces) == 2
    body = json.loads(seen[0].content)
    assert body["stream"] is True
    assert body["max_tokens"] == 5
    assert [m["content"] for m in body["messages"]] == ["Be brief.", "Say three words."]


def test_a_server_that_counts_nothing_is_taken_to_send_a_token_a_chunk(stream: Any) -> None:
    with stream(_response([_delta("one"), _delta(" two"), "[DONE]"]), []) as writer:
        assert writer.write(ASKED, lambda: None) == Usage(0, 2)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx2.Response(401, text="no key"), "HTTP 401: 'no key'"),
        (httpx2.Response(200, text="<html>"), "text/event-stream"),
        (_response(["{half"]), "cannot be timed"),
        (httpx2.ConnectError("refused"), "refused"),
        (httpx2.ReadTimeout("late"), "silent for too long"),
    ],
    ids=["refused", "html", "half", "gone", "silent"],
)
def test_an_endpoint_that_does_not_stream_is_said_to_be_so(
    stream: Any, response: Any, message: str
) -> None:
    with stream(response, []) as writer, pytest.raises(ScoringError, match=message):
        writer.write(ASKED, lambda: None)


def test_a_key_does_not_travel_in_the_clear() -> None:
    with pytest.raises(ScoringError, match="use https"):
        ServedWriter("m", "http://models.example/v1", max_new_tokens=5, key="secret")
    with pytest.raises(ScoringError, match="m: an endpoint needs"):
        ServedWriter("m", "models.example", max_new_tokens=5)
