"""A server on the loopback interface that speaks the OpenAI protocol: scripted, or with a tiny model behind it."""

import json
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Said:
    """One reply: JSON values, or bytes as they are."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Send only this many bytes of the body, having promised all, and hang up."""


@dataclass
class FakeApi:
    """A running server, with everything that it was asked."""

    url: str
    requests: list[Json]
    """Bodies, in the order of arrival."""
    headers: list[Mapping[str, str]]
    most_at_once: int = 0


def message(text: str | None, *, model: str = "m", finish: str = "stop", **more: Any) -> Json:
    """Return a chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish,
    }
    usage = {"prompt_tokens": 10, "completion_tokens": len((text or "").split()) + 1}
    return {"id": "1", "model": model, "choices": [choice], "usage": usage} | more


Answer = Callable[[Json, int], Said | Json]
"""Returns the reply to a body; the number counts requests from 0."""


@contextmanager
def serve(answer: Answer) -> Generator[FakeApi]:
    """Run a server until the block ends."""
    lock = threading.Lock()
    now = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal now
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(api.requests)
                api.requests.append(body | {"path": self.path})
                api.headers.append({k.lower(): v for k, v in self.headers.items()})
                now += 1
                api.most_at_once = max(api.most_at_once, now)
            said = answer(body, number)
            said = said if isinstance(said, Said) else Said(said)
            data = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            with lock:
                now -= 1
            self.send_response(said.status)
            headers = {"Content-Type": "application/json", **said.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data if said.cut is None else data[: said.cut])
            self.close_connection = self.close_connection or said.cut is not None

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api = FakeApi(f"http://127.0.0.1:{server.server_port}/v1", [], [])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class TinyChat:
    """Answers like vLLM's server, with a model that is really run."""

    local: Any
    """A `LocalModel`."""
    states_end: bool = True
    """Whether the end of the turn comes with its distribution."""

    def __call__(self, body: Json, number: int) -> Said | Json:
        """Answer a chat, or score given tokens."""
        import torch

        with torch.inference_mode():
            return self._score(body) if "prompt" in body else self._chat(body)

    def _chat(self, body: Json) -> Json:
        import torch

        tokenizer, model = self.local.tokenizer, self.local.model
        text = tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True
        )
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        generator = torch.Generator().manual_seed(body.get("seed", 0))
        written: list[int] = []
        places: list[Json] = []
        finish = "length"
        while len(written) < body["max_tokens"]:
            logits_V = model(torch.tensor([prompt + written])).logits[0, -1].float()
            log_V = logits_V.log_softmax(-1)
            warm_V = (logits_V / max(body["temperature"], 1e-6)).softmax(-1)
            token = int(torch.multinomial(warm_V, 1, generator=generator))
            ended = token == tokenizer.eos_token_id
            if not ended or self.states_end:
                places.append(self._place(log_V, token, body.get("top_logprobs", 0)))
            if ended:
                finish = "stop"
                break
            written.append(token)
        said = b"".join(self._bytes(t) for t in written).decode(errors="replace")
        choice: Json = {"index": 0, "finish_reason": finish, "message": {"content": said}}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": places}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(places)}
        return {"model": body["model"], "choices": [choice], "usage": usage}

    def _place(self, log_V: Any, token: int, top: int) -> Json:
        best = log_V.topk(top)
        return {
            **self._entry(token, float(log_V[token])),
            "top_logprobs": [
                self._entry(i, p)
                for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ],
        }

    def _entry(self, token: int, logprob: float) -> Json:
        data = self._bytes(token)
        return {"token": data.decode(errors="replace"), "bytes": list(data), "logprob": logprob}

    def _bytes(self, token: int) -> bytes:
        """Return a token's bytes by the tokenizer's own decoder, not by what is under test."""
        name = self.local.tokenizer.convert_ids_to_tokens(token)
        if token in self.local.tokenizer.added_tokens_decoder:
            return name.encode()
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
        return bytes(letters[c] for c in name)

    def _score(self, body: Json) -> Json:
        import torch

        log_TV = self.local.model(torch.tensor([body["prompt"]])).logits[0].float().log_softmax(-1)
        scores: list[Json | None] = [None]
        for t, token in enumerate(body["prompt"][1:]):
            best = log_TV[t].topk(body["prompt_logprobs"])
            ids = list(dict.fromkeys([*best.indices.tolist(), token]))
            scores.append(
                {
                    str(i): {
                        "logprob": float(log_TV[t, i]),
                        "rank": n + 1,
                        "decoded_token": self._bytes(i).decode(errors="replace"),
                    }
                    for n, i in enumerate(ids)
                }
            )
        choice = {"index": 0, "text": "x", "finish_reason": "length", "prompt_logprobs": scores}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1}
        return {"model": body["model"], "choices": [choice], "usage": usage}
