"""The API under schemathesis: whatever its schema allows or forbids, the gateway answers as an API does."""

import asyncio
import threading
from collections.abc import Generator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from guard.fakeupstream import Asked, Pieces, completion, whole
from guard.running import KEY, running

MESSAGE = {
    "type": "object",
    "properties": {"role": {"enum": ["system", "user", "assistant", "tool"]}, "content": {"type": ["string", "null", "array"]}},
    "required": ["role"],
}  # fmt: skip
CHAT = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "messages": {"type": "array", "items": MESSAGE},
        "temperature": {"type": "number"},
        "n": {"type": "integer"},
        "stop": {},
        "tools": {"type": "array"},
        "logit_bias": {"type": "object"},
        "logprobs": {"type": "boolean"},
        "response_format": {"type": "object"},
        "stream_options": {},
        "metadata": {"type": "object"},
    },
    "required": ["model", "messages"],
}
ANY = {"type": "object", "properties": {"model": {"const": "m"}}, "required": ["model"]}
UNHURRIED = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
REPLIES = {
    str(code): {"description": "an answer"}
    for code in (200, 400, 401, 403, 404, 405, 413, 415, 429)
}


def operation(schema: dict[str, Any]) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"post": {"requestBody": body, "responses": REPLIES}}


SCHEMA = schemathesis.openapi.from_dict(
    {
        "openapi": "3.1.0",
        "info": {"title": "guard", "version": "1"},
        "paths": {
            "/v1/chat/completions": operation(CHAT),
            "/v1/completions": operation(
                {
                    **ANY,
                    "properties": {
                        "model": {"const": "m"},
                        "prompt": {},
                        "logprobs": {},
                        "echo": {},
                    },
                }
            ),
            "/v1/embeddings": operation(
                {**ANY, "properties": {"model": {"const": "m"}, "input": {}, "dimensions": {}}}
            ),
            "/v1/responses": operation(
                {
                    **ANY,
                    "properties": {
                        "model": {"const": "m"},
                        "input": {},
                        "tools": {},
                        "text": {},
                        "reasoning": {},
                    },
                }
            ),
            "/v1/models": {"get": {"responses": REPLIES}},
        },
    }
)


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    loop, stop, port = asyncio.new_event_loop(), asyncio.Event(), []

    async def play(asked: Asked) -> Pieces:
        yield whole(completion())

    async def serve() -> None:
        async with running(play) as run:
            port.append(run.port)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    while not port:
        threading.Event().wait(0.01)
    yield f"http://127.0.0.1:{port[0]}"
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@SCHEMA.parametrize()  # pyright: ignore[reportUntypedFunctionDecorator]
@settings(max_examples=40, deadline=None, suppress_health_check=UNHURRIED)
def test_no_input_is_a_server_error_and_every_refusal_is_in_the_apis_form(
    case: Any, url: str
) -> None:
    reply = case.call(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=10)
    assert reply.status_code < 500, reply.text
    assert str(reply.status_code) in REPLIES
    if reply.status_code >= 400:
        assert reply.json()["error"]["message"]
