"""What an export costs and saves: bytes, speed, and divergence from the model before it was exported.

    python benchmarks/export.py [MODEL] [--to gguf/q8_0 ...] [--positions 48]

MODEL is a run's folder, a model folder, or `packaged:…`. Every format is written by `limbeck export` and run by its own
engine: GGUF by llama.cpp (xllamacpp), ONNX by ONNX Runtime, one thread each. The divergence is that of
`transformers` in float32 from what the engine answers, at positions of the model's own greedy answers to
two prompts. Speed is greedy generation of one sequence with a cache, interleaved.
Prints progress, a table, and one JSON object as the last line.
"""

import argparse
import json
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from limbeck.backends import load
from limbeck.chat import Message
from limbeck.distill.speed import write_greedily
from limbeck.workbench import export_model

_QUESTIONS = (
    "Write a short email to a customer to say that the order of a tent is late.",
    "Write a short email to a new customer to say that the order of a blender will be refunded.",
)
_DEFAULT = ("gguf/bf16", "gguf/q8_0", "gguf/q5_0", "gguf/q4_0", "onnx", "onnx/int8")
_TOKENS = 48
_ROUNDS = 5

Logs = npt.NDArray[np.float64]


class Engine(Protocol):
    """A model under some runtime."""

    def log_probs(self, tokens: Sequence[int]) -> Logs:
        """Return the log-probabilities after some tokens."""
        ...

    def seconds(self, tokens: Sequence[int], count: int) -> float:
        """Return how long it takes to write so many tokens."""
        ...


class Transformers:
    """PyTorch on this machine, in the number format given."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @torch.inference_mode()
    def log_probs(self, tokens: Sequence[int]) -> Logs:
        """Return the log-probabilities after some tokens."""
        logits_V = self.model(torch.tensor([list(tokens)])).logits[0, -1]
        return logits_V.double().log_softmax(-1).numpy()

    def seconds(self, tokens: Sequence[int], count: int) -> float:
        """Return how long it takes to write so many tokens."""
        start = time.perf_counter()
        write_greedily(self.model, tokens, count)
        return time.perf_counter() - start


class LlamaCpp:
    """llama.cpp with a GGUF file, its settings as they come, but one thread."""

    def __init__(self, path: Path, vocabulary: int) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path, settings.n_ctx, settings.n_parallel = str(path), 512, 1
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        settings.verbosity = -1
        self._server, self._vocabulary = xllamacpp.Server(settings), vocabulary

    def log_probs(self, tokens: Sequence[int]) -> Logs:
        """Return the log-probabilities after some tokens."""
        # Nothing is told of a drawn token that ends the text or is half a letter: let it draw an `a`.
        asked = {"n_predict": 1, "n_probs": self._vocabulary, "logit_bias": [["a", 1000.0]]}
        reply = self._ask(tokens, asked)
        log_V = np.full(self._vocabulary, -np.inf)
        for told in reply["completion_probabilities"][0]["top_logprobs"]:
            log_V[told["id"]] = told["logprob"]
        return log_V

    def seconds(self, tokens: Sequence[int], count: int) -> float:
        """Return how long it takes to write so many tokens."""
        start = time.perf_counter()
        self._ask(tokens, {"n_predict": count, "ignore_eos": True, "cache_prompt": False})
        return time.perf_counter() - start

    def _ask(self, tokens: Sequence[int], asked: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"prompt": list(tokens), "temperature": 0.0} | asked).encode()
        request = urllib.request.Request(  # noqa: S310  # the address is the server's own
            f"{self._server.listening_address}/completion",
            body,
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:  # noqa: S310
            return json.load(reply)


class OnnxRuntime:
    """ONNX Runtime with an exported graph and its cache."""

    def __init__(self, path: Path, config: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._past = [s.name for s in self._session.get_inputs() if "past" in s.name]
        width = getattr(config, "head_dim", None)
        self._shape = (
            1,
            config.num_key_value_heads,
            0,
            width or config.hidden_size // config.num_attention_heads,
        )

    def log_probs(self, tokens: Sequence[int]) -> Logs:
        """Return the log-probabilities after some tokens."""
        logits_V = self._read(tokens, 0, self._empty())["logits"][0, -1].astype(np.float64)
        logits_V -= logits_V.max()
        return logits_V - np.log(np.exp(logits_V).sum())

    def seconds(self, tokens: Sequence[int], count: int) -> float:
        """Return how long it takes to write so many tokens."""
        start = time.perf_counter()
        past, new, read = self._empty(), list(tokens), 0
        for _ in range(count):
            told = self._read(new, read, past)
            read += len(new)
            past = {n: told[n.replace("input.", "output.")] for n in self._past}
            new = [int(told["logits"][0, -1].argmax())]
        return time.perf_counter() - start

    def _empty(self) -> dict[str, npt.NDArray[np.float32]]:
        return dict.fromkeys(self._past, np.zeros(self._shape, np.float32))

    def _read(self, tokens: Sequence[int], read: int, past: dict[str, Any]) -> dict[str, Any]:
        places = np.arange(read, read + len(tokens))[None]
        feed = past | {"input_ids": np.array([tokens]), "position_ids": places}
        names = [spec.name for spec in self._session.get_outputs()]
        return dict(zip(names, self._session.run(None, feed), strict=True))


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", default="packaged:smollm2-135m-instruct")
    parser.add_argument("--to", nargs="*", default=list(_DEFAULT), metavar="FORMAT[/NUMBERS]")
    parser.add_argument("--positions", type=int, default=48, help="positions that are compared")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(options.model, options.to, options.positions, Path(scratch), console)
    console.print(table(found))
    print(json.dumps(found))


def measure(
    model: str, formats: Sequence[str], positions: int, scratch: Path, console: Console
) -> dict[str, Any]:
    """Export a model in every format, and run each beside the model itself."""
    export_model(model, scratch / "own", "safetensors")
    half = load(str(scratch / "own"), dtype="bfloat16")
    whole = load(str(scratch / "own"), dtype="float32")
    reference = Transformers(whole.model)
    contexts = _contexts(whole, positions)
    theirs = [reference.log_probs(tokens) for tokens in contexts]
    engines: dict[str, Engine] = {
        "transformers float32": reference,
        "transformers bfloat16": Transformers(half.model),
    }
    sizes = {
        "transformers float32": _weights(whole.model),
        "transformers bfloat16": _weights(half.model),
    }
    for name in formats:
        to, _, quantise = name.partition("/")
        folder = scratch / name.replace("/", "-")
        (line, *_) = export_model(model, folder, to, quantise or None)
        console.print(line, highlight=False)
        if to == "gguf":
            engines[name] = LlamaCpp(folder / "model.gguf", whole.model.config.vocab_size)
            sizes[name] = (folder / "model.gguf").stat().st_size
        else:
            engines[name] = OnnxRuntime(folder / "model.onnx", whole.model.config)
            sizes[name] = sum(f.stat().st_size for f in folder.glob("model.onnx*"))
    figures = {
        name: {"bytes": sizes[name]} | _compared(engine, contexts, theirs)
        for name, engine in engines.items()
    }
    for name, rates in _speeds(engines, contexts[0]).items():
        figures[name]["tokens_per_s"] = rates
    return {"model": model, "positions": len(contexts), "formats": figures}


def _contexts(local: Any, positions: int) -> list[list[int]]:
    """Return beginnings of the model's own greedy answers, one longer than the other."""
    contexts: list[list[int]] = []
    each = -(-positions // len(_QUESTIONS))
    for question in _QUESTIONS:
        turns = [{"role": m.role, "content": m.content} for m in (Message("user", question),)]
        prompt = local.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=False
        )
        answer = write_greedily(local.model, prompt, each)
        contexts += [prompt + answer[:n] for n in range(each)]
    return contexts[:positions]


def _weights(model: Any) -> int:
    return sum(p.nbytes for p in model.parameters())


def _compared(
    engine: Engine, contexts: Sequence[Sequence[int]], theirs: Sequence[Logs]
) -> dict[str, float]:
    """Return KL(reference || engine), its mean and largest, and the share of equal first choices."""
    kl: list[float] = []
    agrees: list[bool] = []
    for tokens, p_log in zip(contexts, theirs, strict=True):
        q_log = engine.log_probs(tokens)
        kl.append(float((np.exp(p_log) * (p_log - q_log)).sum()))
        agrees.append(bool(p_log.argmax() == q_log.argmax()))
    return {
        "kl_mean": float(np.mean(kl)),
        "kl_max": max(kl),
        "agreement": float(np.mean(agrees)),
    }


def _speeds(engines: dict[str, Engine], prompt: Sequence[int]) -> dict[str, list[float]]:
    """Return tokens a second of each engine, prompt included: median, least, largest."""
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(_ROUNDS + 1):  # the first warms up
        for name in list(engines) if turn % 2 else list(engines)[::-1]:
            seconds = engines[name].seconds(prompt, _TOKENS)
            if turn:
                rates[name].append(_TOKENS / seconds)
    return {name: [median(v), min(v), max(v)] for name, v in rates.items()}


def table(found: dict[str, Any]) -> Table:
    """Return the figures for a terminal."""
    shown = Table(
        title=f"{found['model']}, {found['positions']} positions",
        caption="KL of transformers in float32 from each; speed: one sequence, one thread, prompt included",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("", no_wrap=True)
    for column in ("MB", "KL, nats", "largest", "agreement", "tokens/s", "speed"):
        shown.add_column(column, justify="right", no_wrap=True)
    base = found["formats"]["transformers bfloat16"]["tokens_per_s"][0]
    for name, row in found["formats"].items():
        shown.add_row(
            name,
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['kl_mean']:.5f}",
            f"{row['kl_max']:.4f}",
            f"{row['agreement']:.1%}",
            f"{row['tokens_per_s'][0]:.1f}",
            f"{row['tokens_per_s'][0] / base:.2f}x",
        )
    return shown


if __name__ == "__main__":
    main()
