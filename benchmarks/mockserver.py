"""A model server that costs next to nothing: fixed replies on a raw asyncio protocol, one process on one port.

`python -m benchmarks.mockserver PORT` answers chat completions at once: 1.2 KB of JSON, or a stream of 50 events.
A request with `"pause_ms"` in its `user` waits so long first.
"""

import asyncio
import json
import sys

import httptools
import uvloop

EVENTS = 50
TEXT = "The still warms, the vapour rises, and what was mixed comes apart drop by drop. " * 10


def whole() -> bytes:
    """Return a non-streamed reply, about 1.2 KB with its headers."""
    message = {"role": "assistant", "content": TEXT}
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "mock",
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 20, "completion_tokens": 200, "total_tokens": 220},
        },
        separators=(",", ":"),
    ).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def streamed() -> list[bytes]:
    """Return the writes of a streamed reply: its head with the first event, then one event each."""
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )

    def event(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        said = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "mock",
            "choices": [choice],
        }
        data = b"data: " + json.dumps(said, separators=(",", ":")).encode() + b"\n\n"
        return b"%x\r\n%s\r\n" % (len(data), data)

    writes = [head + event({"role": "assistant", "content": ""})]
    writes += [event({"content": "drop "}) for _ in range(EVENTS - 2)]
    done = b"data: [DONE]\n\n"
    writes.append(event({}, "stop") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(done), done))
    return writes


WHOLE, STREAMED = whole(), streamed()
MODELS = b'{"object":"list","data":[{"id":"mock","object":"model","created":1,"owned_by":"mock"}]}'


class Mock(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._url = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        write = self._transport.write  # pyright: ignore[reportAttributeAccessIssue]
        if self._url.endswith(b"/models"):
            write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                % len(MODELS)
                + MODELS
            )
        elif b'"stream":true' in self._body or b'"stream": true' in self._body:
            asyncio.get_running_loop().create_task(self._stream())
        else:
            write(WHOLE)

    async def _stream(self) -> None:
        """Write event by event, each in a turn of the loop of its own, so that they arrive apart."""
        for part in STREAMED:
            if self._transport.is_closing():
                return
            self._transport.write(part)  # pyright: ignore[reportAttributeAccessIssue]
            await asyncio.sleep(0)


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Mock, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
