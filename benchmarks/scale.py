"""What the pieces of a large distillation cost on one core here, and what a cluster would need by arithmetic.

    python benchmarks/scale.py [--quick] [--text FILE] [--teacher MODEL]

Prints two tables in Markdown, those of docs/scale.md, then one JSON object as the last line. Measured: reading and
tokenising a corpus, reading it again in a worker, encoding, decoding and unpacking a store, each in seconds of
processor time of one core, and memory. Computed: everything about accelerators and networks, from the
assumptions in `Plan`, none of which was measured here.
"""

import argparse
import gzip
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from residence import reset_peak, resident_bytes

import limbeck
from limbeck.artefact import write_text
from limbeck.backends import load
from limbeck.distill.capture import capture_documents, capture_order
from limbeck.distill.recipe import parse_recipe
from limbeck.distill.store import StoreReader, StoreSpec, StoreWriter, describe
from limbeck.distill.store.unpacked import Unpacked, unpack_part
from limbeck.distill.targets import Document, Taught
from limbeck.distillation import Distillation
from limbeck.progress import Silent

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Measured:
    """What one core of this machine did; rates in tokens or loss positions a second of processor time."""

    corpus_tokens_per_s: float
    """Reading, de-duplicating, splitting and tokenising text."""
    corpus_peak_bytes_per_token: float
    """Main memory that step takes at its peak, beyond what the process held; 0 where the system does not say."""
    reread_tokens_per_s: float
    """Reading the tokenised corpus in a worker."""
    encode_positions_per_s: float
    decode_positions_per_s: float
    unpack_positions_per_s: float
    """Decoding included."""
    store_bytes_per_position: float
    unpacked_bytes_per_position: float
    index_bytes_per_document: float
    """Memory that each training process keeps of a document; its tokens and targets stay on disk."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A distillation on a cluster. Every default is an assumption; docs/scale.md names the sources."""

    teacher_parameters: float = 70e9
    student_parameters: float = 8e9
    vocabulary: int = 128_256
    width: int = 4096
    """Of the student's hidden states."""
    layers: int = 32
    """Of the student."""
    tokens: float = 10e9
    document_tokens: int = 1000
    parts: int = 1024
    """Of the store."""
    peak_flops: float = 989e12
    """Of one accelerator, dense bfloat16."""
    utilisation: float = 0.4
    """Share of the peak that forward and backward passes reach while they run."""
    accelerators_a_worker: int = 4
    workers: int = 16
    training_accelerators: int = 64
    accelerators_a_machine: int = 8
    rows: int = 2
    """Rows of a micro-batch on one accelerator."""
    row_length: int = 4096
    step_rows: int = 256
    """train.rows x train.accumulate."""
    far_bytes: float = 50e9
    """Bytes a second between machines, for each accelerator: 400 Gbit/s."""
    near_bytes: float = 450e9
    """Bytes a second between the accelerators of a machine, for each."""
    disk_bytes: float = 2e9
    """Bytes a second that one process reads from or writes to the shared file system."""
    cores: int = 64
    """Of one machine."""

    def figures(self, measured: Measured) -> dict[str, float]:
        """Return the plan's figures."""
        return (
            self._stored(measured)
            | self._captured(measured)
            | self._held()
            | self._trained(measured)
        )

    @property
    def _flops(self) -> float:
        return self.peak_flops * self.utilisation

    def _stored(self, measured: Measured) -> dict[str, float]:
        """Bytes on disk and in memory, and what one core or one machine does with them."""
        m, tokens = measured, self.tokens
        return {
            "store_gb": tokens * m.store_bytes_per_position / 1e9,
            "top_50_gb": tokens * 127 / 1e9,
            "dense_tb": tokens * self.vocabulary * 2 / 1e12,
            "unpacked_gb": tokens * m.unpacked_bytes_per_position / 1e9,
            "index_gb_a_process": tokens / self.document_tokens * m.index_bytes_per_document / 1e9,
            "corpus_hours": tokens / m.corpus_tokens_per_s / 3600,
            "corpus_memory_gb": tokens * m.corpus_peak_bytes_per_token / 1e9,
            "reread_minutes": tokens / m.reread_tokens_per_s / 60,
            "unpack_minutes": tokens / m.unpack_positions_per_s / self.cores / 60,
        }

    def _captured(self, measured: Measured) -> dict[str, float]:
        """The teacher's forward passes, 2 operations a parameter and token; one device of a worker at a time."""
        rate = self._flops / (2 * self.teacher_parameters)
        encoding = rate / measured.encode_positions_per_s
        together = self.workers * rate / (1 + encoding)
        busy = self.workers * self.accelerators_a_worker * rate
        return {
            "teacher_gb": 2 * self.teacher_parameters / 1e9,
            "worker_tokens_per_s": rate,
            "encode_share": encoding / (1 + encoding),
            "capture_hours": self.tokens / together / 3600,
            "capture_hours_if_all_were_busy": self.tokens / busy / 3600,
            "part_minutes": self.tokens / self.parts / rate * (1 + encoding) / 60,
            "store_write_mb_per_s": together * measured.store_bytes_per_position / 1e6,
        }

    def _held(self) -> dict[str, float]:
        """Memory of one accelerator in training, in shards."""
        student = self.student_parameters
        return {
            "state_gb": 16 * student / self.training_accelerators / 1e9,
            "state_gb_on_one_machine": 16 * student / self.accelerators_a_machine / 1e9,
            "gathered_gb": 2 * 2 * 4 * self.vocabulary * self.width / 1e9,
            "activations_gb": 34 * self.rows * self.row_length * self.width * self.layers / 1e9,
            "checkpoint_gb": 12 * student / 1e9,
            "checkpoint_s": 12 * student / self.disk_bytes,
        }

    def _trained(self, measured: Measured) -> dict[str, float]:
        """Forward and backward, 6 operations a parameter and token; weights gathered twice, gradients sent once."""
        micro = self.rows * self.row_length
        compute = micro * 6 * self.student_parameters / self._flops
        traffic = 3 * 4 * self.student_parameters
        far, near = traffic / self.far_bytes, traffic / self.near_bytes
        many, few = self.training_accelerators * micro, self.accelerators_a_machine * micro
        step_tokens = self.step_rows * self.row_length

        def hours(tokens: int, seconds: float) -> float:
            return self.tokens / tokens * seconds / 3600

        return {
            "step_tokens": step_tokens,
            "steps": self.tokens / step_tokens,
            "micro_batches": self.step_rows / self.rows / self.training_accelerators,
            "compute_s": compute,
            "traffic_gb": traffic / 1e9,
            "traffic_s_between_machines": far,
            "traffic_s_within_a_machine": near,
            "train_hours_without_overlap": hours(many, compute + far),
            "train_hours_with_overlap": hours(many, max(compute, far)),
            "train_hours_on_one_machine": hours(few, compute + near),
            "targets_read_mb_per_s": many
            / max(compute, far)
            * measured.unpacked_bytes_per_position
            / 1e6,
        }


def main() -> None:
    """Measure, compute, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="rough: a small corpus and store")
    parser.add_argument("--text", type=Path, help="UTF-8 prose, where the shared data are missing")
    parser.add_argument("--teacher", default="packaged:smollm2-135m-instruct")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.quick:
        print("quick: rough figures")
    with tempfile.TemporaryDirectory() as folder:
        measured = rounded(measure(_text(options.text), Path(folder), options))
    figures = Plan().figures(measured)
    print("\n".join(["", *table(asdict(measured)), "", *table(figures), ""]))
    line = {"quick": options.quick, "seed": options.seed, "cores": os.cpu_count()}
    print(json.dumps(line | {"measured": asdict(measured), "plan": figures}))


def measure(text: str, folder: Path, options: argparse.Namespace) -> Measured:
    """Run each piece on real text and a real store."""
    load(options.teacher, dtype="float32")  # what is imported once shall not count
    teacher, loading = _timed(lambda: load(options.teacher, dtype="float32"))
    bytes_wanted = 200_000 if options.quick else 20_000_000
    rng = np.random.default_rng(options.seed)
    lines = [line.strip() for line in text.splitlines() if len(line) > 80]
    records: list[str] = []
    written = 0
    while written < bytes_wanted:
        words = " ".join(lines[n] for n in rng.integers(0, len(lines), 3))
        records.append(json.dumps({"text": words}))
        written += len(words)
    write_text(folder / "corpus.jsonl", "\n".join(records))
    recipe = parse_recipe(
        {
            "name": "scale",
            "teacher": {"model": options.teacher, "terms": {"licence": "Apache-2.0"}},
            "corpus": {"files": ["corpus.jsonl"], "max_length": _LENGTH},
            "student": {"layers": 1},
        }
    )
    reset_peak()
    before = resident_bytes() or 0
    run, spent = _timed(
        lambda: limbeck.distill(recipe, base=folder, out=folder / "run", only="corpus")
    )
    peak = (resident_bytes("VmHWM") or 0) - before
    flow = Distillation(recipe, run, folder, resume=True, progress=Silent())
    documents, reread = _timed(lambda: flow.documents)
    tokens = sum(len(d.tokens_T) for d in documents)
    documents = sorted(documents, key=lambda d: d.key)

    some = capture_order(documents[: 8 if options.quick else 48])
    heard = list(capture_documents(teacher, some, StoreSpec(), batch_tokens=4 * _LENGTH, seed=0))
    return Measured(
        corpus_tokens_per_s=tokens / (spent - loading),
        corpus_peak_bytes_per_token=peak / tokens,
        reread_tokens_per_s=tokens / reread,
        **_measure_store(teacher, heard, folder, copies=2 if options.quick else 8),
    )


def _measure_store(
    teacher: Any, heard: list[Taught], folder: Path, copies: int
) -> dict[str, float]:
    """Write what was heard, then several copies of it, for rates that a start does not spoil."""

    def write(name: str, times: int) -> Path:
        with StoreWriter(
            folder / name,
            StoreSpec(),
            vocabulary=teacher.model.get_output_embeddings().weight.shape[0],
            tokenizer_sha256=teacher.tokenizer_sha256,
            teacher={},
        ) as writer:
            for _ in range(times):
                for taught in heard:
                    writer.append(taught)
        return folder / name

    size = describe(write("once", 1))["bytes_per_token"]
    store, encode = _timed(lambda: write("often", copies))
    reader = StoreReader(store)
    positions = copies * sum(len(t.targets) for t in heard)
    count, decode = _timed(lambda: sum(1 for _ in reader.documents()))
    _, unpack = _timed(lambda: unpack_part(reader, folder / "unpacked", 0))
    files = [f for f in (folder / "unpacked").rglob("*") if f.is_file()]
    unpacked = Unpacked(folder / "unpacked", 1)
    assert count == len(unpacked)
    tracemalloc.start()
    kept: list[Document] = [t.document for t in unpacked]
    index = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return {
        "encode_positions_per_s": positions / encode,
        "decode_positions_per_s": positions / decode,
        "unpack_positions_per_s": positions / unpack,
        "store_bytes_per_position": size,
        "unpacked_bytes_per_position": sum(f.stat().st_size for f in files) / positions,
        "index_bytes_per_document": index,
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what work gives, and the processor seconds it took: other programs may share the machine."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def _text(path: Path | None) -> str:
    if path is not None:
        return path.read_text(encoding="utf-8")
    shared = _DATA / "text" / "wikitext2.test.txt.gz"
    if not shared.is_file():
        raise SystemExit("no ../shared/data here: give --text FILE with at least 200 kB of prose")
    return gzip.decompress(shared.read_bytes()).decode()


def rounded(measured: Measured) -> Measured:
    """Return figures of three digits, so that what is computed from a printed table is what was printed."""
    return Measured(**{name: float(f"{value:.3g}") for name, value in asdict(measured).items()})


def table(figures: Mapping[str, float]) -> list[str]:
    """Return the lines of a table in Markdown."""
    shown = {
        name: f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
        for name, value in figures.items()
    }
    return ["| what | figure |", "|---|---|", *(f"| {n} | {v} |" for n, v in shown.items())]


if __name__ == "__main__":
    main()
