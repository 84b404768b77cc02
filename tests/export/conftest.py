"""Engines that run what was exported, and small models of every family that can be."""

import importlib
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from limbeck.backends import load
from limbeck.model import LocalModel


class LlamaCpp:
    """llama.cpp with one GGUF file, in this process, listening on the loopback interface."""

    def __init__(self, path: Path) -> None:
        xllamacpp: Any = importlib.import_module("xllamacpp")  # compiled, without types
        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx, settings.n_parallel = 256, 1
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        settings.warmup, settings.verbosity = False, -1
        # By default cache and attention hold 16 bits, which is more error than the weights bring.
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(settings)

    def log_probs(self, tokens: list[int], vocabulary: int) -> npt.NDArray[np.float64]:
        """Return the log-probability of every token after some."""
        # Nothing is told of a drawn token that ends the text or is half a letter: let it draw an `a`.
        asked = {"prompt": tokens, "n_predict": 1, "logit_bias": [["a", 1000.0]]}
        told = self._post("completion", asked | {"n_probs": vocabulary})
        told = told["completion_probabilities"][0]["top_logprobs"]
        log_V = np.full(vocabulary, -np.inf)
        log_V[[one["id"] for one in told]] = [one["logprob"] for one in told]
        return log_V

    def write(self, tokens: list[int], count: int) -> list[int]:
        """Return the likeliest continuation."""
        asked = {"prompt": tokens, "n_predict": count, "temperature": 0.0, "ignore_eos": True}
        return self._post("completion", asked | {"return_tokens": True})["tokens"]

    def tokenize(self, text: str) -> list[int]:
        """Return a text's tokens, special tokens read as such."""
        asked = {"content": text, "add_special": True, "parse_special": True}
        return self._post("tokenize", asked)["tokens"]

    def _post(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  # the address is the server's own
            f"{self._server.listening_address}/{path}",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:  # noqa: S310
            return json.load(reply)


@pytest.fixture
def llama_cpp() -> Iterator[Callable[[Path], LlamaCpp]]:
    """Starts llama.cpp on a file; what was started ends with the test."""
    pytest.importorskip("xllamacpp")
    running: list[LlamaCpp] = []

    def start(path: Path) -> LlamaCpp:
        running.append(LlamaCpp(path))
        return running[-1]

    yield start
    running.clear()


@pytest.fixture
def tiny(tiny_teacher_folder: Path) -> LocalModel:
    """A model of its own for each test."""
    return load(str(tiny_teacher_folder), dtype="float32")


class ByTransformers:
    """What `transformers` says of a model, without a cache."""

    @torch.no_grad()
    def log_probs(self, model: Any, tokens: list[int]) -> npt.NDArray[np.float64]:
        """Return the log-probability of every token after some."""
        return model(torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1).numpy()

    @torch.no_grad()
    def write(self, model: Any, tokens: list[int], count: int) -> list[int]:
        """Return the likeliest continuation."""
        written: list[int] = []
        for _ in range(count):
            logits_TV = model(torch.tensor([tokens + written])).logits[0]
            written.append(int(logits_TV[-1].argmax()))
        return written


@pytest.fixture
def by_transformers() -> ByTransformers:
    """The reference that engines are compared with."""
    return ByTransformers()
