"""Clients that people use, unchanged, against the gateway: the official one, and one that is not."""

import asyncio
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from guard.fakeupstream import END, STREAM_HEAD, Asked, Pieces, chunked, completion, delta, whole
from guard.running import KEY, Running, running
from limbeck.guard.account import Plan
from limbeck.guard.memory import holder_of

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


async def play(asked: Asked) -> Pieces:
    """Answer every endpoint as a model server does."""
    body = asked.json
    if asked.path == "/v1/embeddings":
        card = {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}
        yield whole(
            orjson.dumps(
                {
                    "object": "list",
                    "data": [card],
                    "model": "m",
                    "usage": {"prompt_tokens": 2, "total_tokens": 2},
                }
            )
        )
    elif asked.path == "/v1/completions":
        yield whole(
            orjson.dumps(
                {
                    "id": "t",
                    "object": "text_completion",
                    "created": 1,
                    "model": "m",
                    "choices": [
                        {"index": 0, "text": "yes", "logprobs": None, "finish_reason": "stop"}
                    ],
                }
            )
        )
    elif asked.path == "/v1/responses":
        part = {"type": "output_text", "text": "yes", "annotations": []}
        item = {
            "type": "message",
            "id": "i",
            "status": "completed",
            "role": "assistant",
            "content": [part],
        }
        yield whole(
            orjson.dumps(
                {
                    "id": "r",
                    "object": "response",
                    "created_at": 1,
                    "model": "m",
                    "status": "completed",
                    "output": [item],
                    "parallel_tool_calls": True,
                    "tool_choice": "auto",
                    "tools": [],
                }
            )
        )
    elif body.get("stream"):
        yield STREAM_HEAD
        for word in ("Hel", "lo", "."):
            yield chunked(delta(word))
        yield chunked(b"data: [DONE]\n\n") + END
    elif body.get("tools"):
        message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
        yield whole(
            completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])
        )
    elif body.get("max_tokens") == 0:
        yield whole(
            b'{"error":{"message":"max_tokens must be positive","type":"BadRequestError","param":null,"code":400}}',
            "400 Bad Request",
        )
    else:
        yield whole(completion('{"a": 1}' if body.get("response_format") else "Hello."))


@contextmanager
def gateway() -> Generator[Running]:
    """Run a gateway in a thread, for clients that block."""
    loop = asyncio.new_event_loop()
    stop, started = asyncio.Event(), threading.Event()
    found: list[Running] = []

    async def serve() -> None:
        holders = {KEY: holder_of("a", Plan("p", capabilities=frozenset({"n", "seed"})))}
        async with running(play, holders=holders) as run:
            found.append(run)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="module")
def run() -> Generator[Running]:
    with gateway() as running_gateway:
        yield running_gateway


@pytest.fixture
def client(run: Running) -> Generator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{run.port}/v1", api_key=KEY, max_retries=0
    ) as made:
        yield made


MESSAGES: Any = [{"role": "user", "content": "Hi"}]


def test_chats(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(
        model="m", messages=MESSAGES, temperature=0.5, max_tokens=5
    )
    assert said.choices[0].message.content == "Hello."
    assert said.usage is not None
    assert said.usage.completion_tokens == 3


def test_streams(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as chunks:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello."


def test_calls_tools(client: openai.OpenAI) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
        },
    }
    said = client.chat.completions.create(
        model="m", messages=MESSAGES, tools=[tool], tool_choice="auto"
    )
    calls: Any = said.choices[0].message.tool_calls
    assert json.loads(calls[0].function.arguments) == {"x": 1}


def test_asks_for_json(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(
        model="m", messages=MESSAGES, response_format={"type": "json_object"}
    )
    assert json.loads(said.choices[0].message.content or "") == {"a": 1}


def test_sends_pictures_by_url(client: openai.OpenAI, run: Running) -> None:
    parts: Any = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])
    assert run.fake.asked[-1].json["messages"][0]["content"] == parts


def test_completes_embeds_and_responds(client: openai.OpenAI) -> None:
    assert client.completions.create(model="m", prompt="Say yes").choices[0].text == "yes"
    assert client.embeddings.create(model="m", input="a", encoding_format="float").data[
        0
    ].embedding == [0.5, -0.25]
    assert client.responses.create(model="m", input="Say yes").output_text == "yes"


def test_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["m"]
    assert client.models.retrieve("m").id == "m"


def test_meets_errors_as_its_own_exceptions(client: openai.OpenAI, run: Running) -> None:
    with pytest.raises(openai.BadRequestError, match="max_tokens must be positive"):
        client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=0)
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.chat.completions.create(model="other", messages=MESSAGES)
    with pytest.raises(openai.PermissionDeniedError, match="logprobs"):
        client.chat.completions.create(model="m", messages=MESSAGES, logprobs=True)
    with pytest.raises(openai.BadRequestError, match="not a parameter"):
        client.chat.completions.create(
            model="m", messages=MESSAGES, extra_body={"prompt_logprobs": 5}
        )
    wrong = openai.OpenAI(
        base_url=f"http://127.0.0.1:{run.port}/v1", api_key="lk-wrong", max_retries=0
    )
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.chat.completions.create(model="m", messages=MESSAGES)


def test_aiohttp_reads_the_same() -> None:
    async def ask() -> None:
        async with (
            running(play) as run,
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
        ):
            url = f"http://127.0.0.1:{run.port}/v1/chat/completions"
            async with session.post(url, json={"model": "m", "messages": MESSAGES}) as reply:
                assert await reply.read() == completion()
            async with session.post(
                url, json={"model": "m", "messages": MESSAGES, "stream": True}
            ) as reply:
                assert (await reply.read()).endswith(delta(".") + b"data: [DONE]\n\n")

    asyncio.run(ask())
