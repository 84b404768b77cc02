"""Time of capture over a bare teacher forward with log-softmax, and what bfloat16 changes.

    python benchmarks/capture.py [--quick] [--seed N] [--teacher M] [--text FILE]

Bare is `log_softmax(model(tokens).logits)` in float32, and nothing is kept. Capture is what a run does: hidden
states, the head over loss positions, log-softmax, the choice of what to keep, encoding, writing. Both take
the same batches in turns, whoever comes second changing every time. Documents are texts of up to 512 tokens
whose lengths differ (`lengths`: the middle and the longest are stated), sorted as a run sorts them. The same is done in bfloat16 and
in float32, and the distributions of both precisions are compared. Prints a table, then one JSON object as
the last line.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from pair import read_text
from rich.console import Console
from rich.table import Table

from limbeck.artefact import sha256_bytes
from limbeck.backends import load
from limbeck.distill.capture import capture_documents, capture_order, listen_densely, token_batches
from limbeck.distill.store import StoreSpec, StoreWriter
from limbeck.distill.targets import Document
from limbeck.model import LocalModel

_LONGEST, _SHORTEST = 512, 64
_BATCH_TOKENS = 2048
_COMPARED = 4
"""Documents whose distributions in both precisions are compared."""


@dataclass(frozen=True, slots=True)
class Found:
    """One precision: seconds a loss position, and the ratio batch by batch."""

    precision: str
    bare_us: float
    capture_us: float
    ratio: float
    """Median over batches of capture over bare."""
    ratio_range: tuple[float, float]
    """Smallest and largest."""


def main() -> None:
    """Measure, print the table and the JSON line."""
    options = _options()
    torch.set_num_threads(options.threads)
    found: list[Found] = []
    heard: dict[str, list[torch.Tensor]] = {}
    for precision in ("bfloat16", "float32"):
        teacher = load(options.teacher, dtype=precision)
        documents = _documents(teacher, read_text(options.text), options)
        found.append(_measure(teacher, documents, options))
        pilot = documents[:: max(1, len(documents) // _COMPARED)][:_COMPARED]
        heard[precision] = [dense_NV for _, dense_NV in listen_densely(teacher, pilot, 1.0)]
    apart, agree = _compare(heard["float32"], heard["bfloat16"])
    _print_table(found, apart, agree, options)
    lengths = [len(d.tokens_T) for d in documents]
    result = {
        "quick": options.quick,
        "seed": options.seed,
        "capture_over_bare": {f.precision: f.ratio for f in found},
        "bfloat16_over_float32": found[0].capture_us / found[1].capture_us,
        "bfloat16_kl": apart,
        "bfloat16_top1_agreement": agree,
        "precisions": [asdict(f) for f in found],
        "documents": len(documents),
        "lengths": {"median": median(lengths), "longest": max(lengths)},
        "threads": options.threads,
    }
    print(json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes; figures are rough")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher", default="packaged:smollm2-135m-instruct")
    parser.add_argument("--documents", type=int, help="documents; 96, or 12 with --quick")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--text", type=Path, help="UTF-8 text, where the shared data are missing")
    options = parser.parse_args()
    if options.documents is None:
        options.documents = 12 if options.quick else 96
    if options.documents < 1:
        parser.error(f"--documents must be at least 1, got {options.documents}")
    return options


def _documents(teacher: LocalModel, text: str, options: argparse.Namespace) -> list[Document]:
    """Return documents of many lengths, longest first."""
    lengths = np.random.default_rng(options.seed).integers(
        _SHORTEST, _LONGEST, size=options.documents, endpoint=True
    )
    text = text[: int(lengths.sum()) * 8]
    ids_T = np.array(teacher.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)
    ends = np.minimum(lengths.cumsum(), len(ids_T))
    pieces = [ids_T[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return capture_order([_document(piece_T) for piece_T in pieces if len(piece_T) > 1])


def _document(tokens_T: np.ndarray) -> Document:
    loss_T = np.arange(len(tokens_T)) < len(tokens_T) - 1
    return Document(tokens_T, loss_T, False, sha256_bytes(tokens_T.tobytes()))


def _measure(
    teacher: LocalModel, documents: Sequence[Document], options: argparse.Namespace
) -> Found:
    spec = StoreSpec()
    vocabulary = teacher.model.get_output_embeddings().weight.shape[0]
    bare_s: list[float] = []
    capture_s: list[float] = []
    positions: list[int] = []
    with tempfile.TemporaryDirectory(prefix="limbeck-capture-") as folder:
        writer = StoreWriter(
            Path(folder) / "store",
            spec,
            vocabulary=vocabulary,
            tokenizer_sha256=teacher.tokenizer_sha256,
            teacher={"name": "benchmark"},
        )
        for number, batch in enumerate(_batches(documents)):
            arms = [
                (bare_s, lambda batch=batch: _bare(teacher, batch)),
                (
                    capture_s,
                    lambda batch=batch: _capture(teacher, batch, spec, writer, options.seed),
                ),
            ]
            for seconds, run in arms[:: -1 if number % 2 else 1]:
                started = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - started)
            positions.append(sum(int(d.loss_T.sum()) for d in batch))
        started = time.perf_counter()
        writer.finish()
        finish_s = time.perf_counter() - started
    total = sum(positions)
    whole_s = [s + finish_s * n / total for s, n in zip(capture_s, positions, strict=True)]
    counted = slice(1, None) if len(positions) > 1 else slice(None)  # the first batch warms up
    ratios = [c / b for c, b in zip(whole_s[counted], bare_s[counted], strict=True)]
    return Found(
        precision=str(teacher.model.dtype).removeprefix("torch."),
        bare_us=1e6 * median(np.divide(bare_s[counted], positions[counted])),
        capture_us=1e6 * median(np.divide(whole_s[counted], positions[counted])),
        ratio=median(ratios),
        ratio_range=(min(ratios), max(ratios)),
    )


def _batches(documents: Sequence[Document]) -> Iterator[list[Document]]:
    for batch in token_batches([len(d.tokens_T) for d in documents], _BATCH_TOKENS):
        yield [documents[i] for i in batch]


@torch.inference_mode()
def _bare(teacher: LocalModel, batch: Sequence[Document]) -> None:
    width = max(len(d.tokens_T) for d in batch)
    tokens_BT = torch.zeros(len(batch), width, dtype=torch.long)
    for row, document in enumerate(batch):
        tokens_BT[row, : len(document.tokens_T)] = torch.from_numpy(document.tokens_T)
    teacher.model(tokens_BT).logits.float().log_softmax(-1)


def _capture(
    teacher: LocalModel,
    batch: Sequence[Document],
    spec: StoreSpec,
    writer: StoreWriter,
    seed: int,
) -> None:
    for taught in capture_documents(teacher, batch, spec, batch_tokens=_BATCH_TOKENS, seed=seed):
        writer.append(taught)


def _compare(exact: list[torch.Tensor], rounded: list[torch.Tensor]) -> tuple[float, float]:
    """Return KL(float32 ‖ bfloat16) in nats a position, and how often both name one token first."""
    p_NV, q_NV = torch.cat(exact).double(), torch.cat(rounded).double()
    apart = (p_NV.exp() * (p_NV - q_NV)).sum(-1).mean()
    agree = (p_NV.argmax(-1) == q_NV.argmax(-1)).double().mean()
    return float(apart), float(agree)


def _print_table(
    found: Sequence[Found], apart: float, agree: float, options: argparse.Namespace
) -> None:
    title = f"{options.documents} documents, {options.threads} threads"
    table = Table(title=f"{title} (quick: rough)" if options.quick else title)
    for column in ("precision", "bare us/position", "capture us/position", "capture / bare"):
        table.add_column(column, justify="left" if column == "precision" else "right")
    for row in found:
        low, high = row.ratio_range
        ratio = f"{row.ratio:.2f} ({low:.2f}-{high:.2f})"
        table.add_row(row.precision, f"{row.bare_us:.0f}", f"{row.capture_us:.0f}", ratio)
    Console().print(table)
    print(f"KL(float32 || bfloat16) {apart:.5f} nats; one top token at {agree:.1%} of positions")


if __name__ == "__main__":
    main()
