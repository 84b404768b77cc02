"""The projection matrix of a real model: stolen through an open interface, out of reach behind the sealed one.

Carlini et al. 2024 (arXiv 2403.06634), section 4: with a bias on tokens, top log-probabilities give the logits of
any tokens, up to a constant; logits of many prompts span exactly the columns of the output layer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from guard.fakeupstream import Asked, Pieces, completion, whole
from guard.running import KEY, Client, hello, running
from limbeck.guard.account import Plan
from limbeck.guard.interface.capability import CAPABILITIES
from limbeck.guard.memory import holder_of

TOP = 20
BIAS = 100.0
PROMPTS = 72
WIDTH = 64
Ask = Callable[[bytes], Awaitable[dict[str, Any] | None]]


class TinyServer:
    """A tiny transformers model that answers with one token, honours a bias, and tells its likeliest tokens."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._torch = torch
        self._known: dict[str, np.ndarray] = {}
        self.head_VD = self._model.lm_head.weight.detach().numpy().astype(np.float64)

    @property
    def vocabulary(self) -> int:
        return len(self.head_VD)

    async def play(self, asked: Asked) -> Pieces:
        body = asked.json
        logits_V = self._logits(body["messages"][-1]["content"]).copy()
        for token, bias in (body.get("logit_bias") or {}).items():
            logits_V[int(token)] += bias
        log_V = logits_V - np.logaddexp.reduce(logits_V)
        likeliest = np.argsort(-log_V)[: body.get("top_logprobs", 0)]
        entries = [{"token": f"t{t}", "logprob": float(log_V[t]), "bytes": None} for t in likeliest]
        said = f"t{int(np.argmax(log_V))}"
        logprobs = {
            "content": [
                {
                    "token": said,
                    "logprob": float(log_V.max()),
                    "bytes": None,
                    "top_logprobs": entries,
                }
            ]
        }
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": said},
            "finish_reason": "length",
        }
        yield whole(
            completion(choices=[{**choice, "logprobs": logprobs if body.get("logprobs") else None}])
        )

    def _logits(self, prompt: str) -> np.ndarray:
        if prompt not in self._known:
            ids = self._tokenizer(prompt, return_tensors="pt").input_ids
            with self._torch.no_grad():
                self._known[prompt] = self._model(ids).logits[0, -1].numpy().astype(np.float64)
        return self._known[prompt]


async def steal(ask: Ask, vocabulary: int) -> np.ndarray | None:
    """Return the logits of many prompts, each up to a constant; None where the interface does not give them."""
    rows: list[np.ndarray] = []
    for number in range(PROMPTS):
        row_V = np.zeros(vocabulary)
        for start in range(1, vocabulary, TOP - 1):
            wanted = range(start, min(start + TOP - 1, vocabulary))
            bias = {str(token): BIAS for token in (0, *wanted)}
            prompt = [
                {"role": "user", "content": f"{number} mills by the river {number * 37 % 101}"}
            ]
            said = await ask(
                hello(
                    messages=prompt, logit_bias=bias, logprobs=True, top_logprobs=TOP, max_tokens=1
                )
            )
            if said is None:
                return None
            entries = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            seen = {int(entry["token"][1:]): entry["logprob"] for entry in entries}
            for token in wanted:
                row_V[token] = seen[token] - seen[0]
        rows.append(row_V)
    return np.stack(rows)


def rank(logits_NV: np.ndarray) -> int:
    """Return the dimension that the logits span: where the singular values fall off the steepest."""
    values = np.linalg.svd(logits_NV, compute_uv=False)
    return int(np.argmax(np.log(values[:-1]) - np.log(np.maximum(values[1:], 1e-300)))) + 1


@pytest.fixture(scope="module")
def model(tiny_teacher_folder: Path) -> TinyServer:
    return TinyServer(tiny_teacher_folder)


def attack(model: TinyServer, *, through_the_guard: bool) -> tuple[np.ndarray | None, int]:
    """Run the attack; return what it got, and how many requests reached the model."""

    async def run() -> tuple[np.ndarray | None, int]:
        holders = {KEY: holder_of("a", Plan("p", capabilities=frozenset(CAPABILITIES)))}
        async with running(model.play, holders=holders) as run:
            port = run.port if through_the_guard else run.fake.port
            async with Client(port) as client:

                async def ask(body: bytes) -> dict[str, Any] | None:
                    got = await client.post(body)
                    return orjson.loads(got.body) if got.status == 200 else None

                found = await steal(ask, model.vocabulary)
            return found, len(run.fake.asked)

    return asyncio.run(run())


def test_an_open_interface_gives_the_width_and_the_space_of_the_output_layer_away(
    model: TinyServer,
) -> None:
    logits_NV, _ = attack(model, through_the_guard=False)
    assert logits_NV is not None
    assert rank(logits_NV) == WIDTH
    # The rows lie in the span of the output layer's columns, seen from token 0 as the attacker sees them.
    basis_DV = np.linalg.svd(logits_NV, full_matrices=False)[2][:WIDTH]
    head_VD = model.head_VD - model.head_VD[0]
    missed = head_VD - basis_DV.T @ (basis_DV @ head_VD)
    assert np.linalg.norm(missed) / np.linalg.norm(head_VD) < 1e-3


def test_behind_the_guard_not_one_request_of_it_reaches_the_model_in_the_widest_plan(
    model: TinyServer,
) -> None:
    assert attack(model, through_the_guard=True) == (None, 0)
