"""Bytes against gradient error of the target store, beside random sampling and top-k formats.

    python benchmarks/store.py [--quick] [--seed N] [--text FILE]

Natural text is WikiText-2's test split where ../shared/data lies beside the project, else `--text`; the
defaults that are measured here were chosen on its validation split. Sampled text is what the teacher
answers to chat prompts at temperature 1. Everything runs on one thread, as each of several capture
processes does. Prints a table, then one JSON object as the last line.
"""

import argparse
import gzip
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.backends import load
from limbeck.distill.store import (
    StoreReader,
    StoreSpec,
    StoreWriter,
    describe,
    gradient_mse,
    sparsify,
)
from limbeck.distill.targets import Document, Taught

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_DRAWS = 12
_LENGTH = 256
_BATCH = 4
_ANSWER = 128
_PROMPTS = (
    "What causes the seasons?",
    "Write a short poem about a lighthouse.",
    "How do I cook rice?",
    "Explain what a database index is.",
    "Give me three ideas for a rainy afternoon.",
    "What is the difference between a virus and a bacterium?",
    "Write a polite email that declines an invitation.",
    "Tell me about the history of tea.",
)
# DistillKit a61c2e7 states 127 bytes for k = 50 at 18 bits an id: 112.5 of them are ids.
_TOPK_VALUE_BYTES = 127 - 50 * 18 / 8


@dataclass
class Arm:
    """One way to make a store, with what it took."""

    spec: StoreSpec
    writer: StoreWriter
    errors: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Baseline:
    """Random sampling of whole distributions."""

    errors: list[Tensor] = field(default_factory=list)
    entries: int = 0
    positions: int = 0


Dense = tuple[Document, Tensor, Tensor | None, float]
"""A document, its log-probabilities, its realised tokens if drawn from them, and seconds they took."""


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes; figures are rough")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", type=Path, help="UTF-8 text, where the shared data are missing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    teacher = load("packaged:smollm2-135m-instruct", dtype="float32")
    documents = 20 if options.quick else 128
    natural = measure(_natural(teacher, _text(options.text), documents), teacher, options, False)
    prompts = 20 if options.quick else 192
    sampled = measure(_sampled(teacher, prompts, options.seed), teacher, options, True)
    for kind, found in (("natural", natural), ("sampled", sampled)):
        _print_table(kind, found)
    line = {
        "quick": options.quick,
        "seed": options.seed,
        "natural": natural["summary"],
        "sampled": sampled["summary"],
        "decode_positions_per_s": natural["decode_positions_per_s"],
        "encode_share_of_capture": natural["encode_share_of_capture"],
    }
    print(json.dumps(line))


def measure(
    stream: Iterator[Dense], teacher: Any, options: argparse.Namespace, is_sampled: bool
) -> dict[str, Any]:
    """Send one stream of dense distributions through every arm."""
    vocabulary = teacher.model.get_output_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(options.seed)
    default = StoreSpec()
    specs = {"default": default}
    if not options.quick:
        specs["coarser"] = StoreSpec(head_threshold=0.14, tail_weight=0.2)
        specs["finer"] = StoreSpec(head_threshold=0.05, tail_weight=0.07, tail_samples=16)
    if is_sampled:
        specs["no free sample"] = default
    baseline, capture_s = Baseline(), 0.0
    with tempfile.TemporaryDirectory() as scratch:
        arms = {
            name: Arm(
                spec, _writer(Path(scratch) / name, spec, vocabulary, teacher.tokenizer_sha256)
            )
            for name, spec in specs.items()
        }
        for document, log_probs_NV, realised_N, seconds in stream:
            capture_s += seconds
            for name, arm in arms.items():
                free = realised_N if name != "no free sample" else None
                _feed(arm, document, log_probs_NV, free, generator)
            _random_sampling(baseline, log_probs_NV, generator)
        for arm in arms.values():
            started = time.perf_counter()
            arm.writer.finish()
            arm.seconds += time.perf_counter() - started
        described = {name: describe(Path(scratch) / name) for name in specs}
        rate = _decode_rate(Path(scratch) / "default")
    encode_s = arms["default"].seconds
    rows = {
        name: (described[name]["bytes_per_token"], float(torch.cat(arm.errors).mean()))
        for name, arm in arms.items()
    }
    rs12_error = float(torch.cat(baseline.errors).mean())
    rs12_bytes = 1 + 3 * baseline.entries / baseline.positions
    top50 = 50 * math.ceil(math.log2(vocabulary)) / 8 + _TOPK_VALUE_BYTES
    return {
        "summary": {
            "bytes_per_token": rows["default"][0],
            "gradient_mse": rows["default"][1],
            "rs12_gradient_mse": rs12_error,
            "rs12_bytes_per_token": rs12_bytes,
            "topk50_bytes_per_token": top50,
            "positions": baseline.positions,
            "text_bytes_per_document_token": described["default"]["text_bytes_per_document_token"],
            "bytes_per_token_without_text": described["default"]["bytes_per_token_without_text"],
            "bytes_per_token_by_kind": described["default"]["bytes_per_token_by_kind"],
        },
        "rows": rows,
        "decode_positions_per_s": rate,
        "encode_share_of_capture": encode_s / (encode_s + capture_s),
    }


def _writer(folder: Path, spec: StoreSpec, vocabulary: int, tokenizer: str) -> StoreWriter:
    return StoreWriter(
        folder,
        spec,
        vocabulary=vocabulary,
        tokenizer_sha256=tokenizer,
        teacher={"name": "benchmark"},
    )


def _feed(
    arm: Arm,
    document: Document,
    log_probs_NV: Tensor,
    realised_N: Tensor | None,
    generator: torch.Generator,
) -> None:
    started = time.perf_counter()
    targets = sparsify(log_probs_NV, realised_N, arm.spec, generator)
    arm.writer.append(Taught(document, targets))
    arm.seconds += time.perf_counter() - started
    arm.errors.append(gradient_mse(targets, log_probs_NV))


def _random_sampling(baseline: Baseline, log_probs_NV: Tensor, generator: torch.Generator) -> None:
    """Draw 12 tokens a position; the estimate is their counts over 12 (2503.16870)."""
    probs_NV = log_probs_NV.exp()
    ids_NK = torch.multinomial(probs_NV, _DRAWS, replacement=True, generator=generator)
    error_NV = probs_NV.neg_()
    error_NV.scatter_add_(1, ids_NK, torch.full(ids_NK.shape, 1 / _DRAWS))
    baseline.errors.append(torch.linalg.vecdot(error_NV, error_NV).double())
    baseline.entries += sum(len(np.unique(row)) for row in ids_NK.numpy())
    baseline.positions += len(ids_NK)


def _decode_rate(folder: Path) -> float:
    """Return loss positions a second of one core's time, all shards, best of three."""
    best = 0.0
    for _ in range(3):
        reader = StoreReader(folder)
        started = time.process_time()
        positions = sum(len(t.targets) for t in reader.documents())
        best = max(best, positions / (time.process_time() - started))
    return best


def _text(path: Path | None) -> str:
    if path is not None:
        return path.read_text(encoding="utf-8")
    shared = _DATA / "text" / "wikitext2.test.txt.gz"
    if not shared.is_file():
        raise SystemExit("no ../shared/data here: give --text FILE with at least 200 kB of prose")
    return gzip.decompress(shared.read_bytes()).decode()


@torch.inference_mode()
def _natural(teacher: Any, text: str, count: int) -> Iterator[Dense]:
    """Yield so many documents of 256 tokens with their distributions."""
    ids = teacher.tokenizer(text[: count * _LENGTH * 6], add_special_tokens=False)["input_ids"]
    rows = [ids[i : i + _LENGTH] for i in range(0, len(ids) - _LENGTH + 1, _LENGTH)][:count]
    for first in range(0, len(rows), _BATCH):
        started = time.perf_counter()
        tokens_BT = torch.tensor(rows[first : first + _BATCH])
        logits_BTV = teacher.model(tokens_BT).logits[:, :-1].float()
        dense = [logits_TV.log_softmax(-1) for logits_TV in logits_BTV]
        seconds = (time.perf_counter() - started) / len(dense)
        loss_T = np.arange(_LENGTH) < _LENGTH - 1
        for tokens_T, log_probs_NV in zip(tokens_BT.numpy().astype(np.int32), dense, strict=True):
            yield _document(tokens_T, loss_T), log_probs_NV, None, seconds


@torch.inference_mode()
def _sampled(teacher: Any, count: int, seed: int) -> Iterator[Dense]:
    """Yield answers that the teacher drew at temperature 1, with the distributions they came from."""
    torch.manual_seed(seed)
    tokenizer = teacher.tokenizer
    tokenizer.padding_side = "left"
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        for prompt in _prompts(count, seed)
    ]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    for first in range(0, count, 24):
        started = time.perf_counter()
        asked = tokenizer(
            texts[first : first + 24], return_tensors="pt", padding=True, add_special_tokens=False
        )
        width = asked["input_ids"].shape[1]
        out = teacher.model.generate(
            **asked,
            max_new_tokens=_ANSWER,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            pad_token_id=pad,
        )
        seconds = (time.perf_counter() - started) / len(out)
        for row, real in zip(out, asked["attention_mask"], strict=True):
            yield _answer(teacher, row, width - int(real.sum()), width, seconds)


def _answer(teacher: Any, row: Tensor, start: int, width: int, seconds: float) -> Dense:
    ends = (row[width:] == teacher.tokenizer.eos_token_id).nonzero()
    stop = width + int(ends[0, 0]) + 1 if len(ends) else len(row)
    tokens = row[start:stop]
    started = time.perf_counter()
    logits_NV = teacher.model(tokens[None]).logits[0, width - start - 1 : -1].float()
    log_probs_NV = logits_NV.log_softmax(-1)
    seconds += time.perf_counter() - started
    loss_T = (np.arange(len(tokens)) >= width - start - 1) & (
        np.arange(len(tokens)) < len(tokens) - 1
    )
    document = _document(tokens.numpy().astype(np.int32), loss_T)
    return document, log_probs_NV, tokens[width - start :], seconds


def _document(tokens_T: np.ndarray, loss_T: np.ndarray) -> Document:
    return Document(tokens_T, loss_T, False, hashlib.sha256(tokens_T.tobytes()).hexdigest())


def _prompts(count: int, seed: int) -> list[str]:
    shared = _DATA / "traffic" / "prompts.jsonl.gz"
    found = list(_PROMPTS)
    if shared.is_file():
        with gzip.open(shared, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        found = [r["text"] for r in rows if r["class"] == "chat" and 20 < len(r["text"]) < 300]
    order = np.random.default_rng(seed).permutation(max(len(found), count))
    return [found[i % len(found)] for i in order[:count]]


def _print_table(kind: str, found: dict[str, Any]) -> None:
    summary = found["summary"]
    print(f"\n{kind}: {summary['positions']} loss positions")
    print(f"{'':28}{'bytes/token':>12}{'gradient MSE':>14}")
    for name, (size, error) in found["rows"].items():
        print(f"{'store, ' + name:28}{size:12.2f}{error:14.4f}")
    size, error = summary["rs12_bytes_per_token"], summary["rs12_gradient_mse"]
    print(f"{'12 random draws, 3 B each':28}{size:12.2f}{error:14.4f}")
    print(
        f"{'top-k 50, fixed-width ids':28}{summary['topk50_bytes_per_token']:12.2f}{'biased':>14}"
    )
    kinds = summary["bytes_per_token_by_kind"].items()
    print("where the default's bytes go: " + ", ".join(f"{k} {v:.2f}" for k, v in kinds))
    print(f"decoding {found['decode_positions_per_s']:.0f} positions a second of one core")
    print(f"encoding takes {100 * found['encode_share_of_capture']:.1f}% of capture time")


if __name__ == "__main__":
    main()
