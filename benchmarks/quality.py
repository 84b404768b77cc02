"""Held-out divergence of one student under different targets, everything else equal.

    python benchmarks/quality.py [--quick] [--seed N] [--seeds N] [--train-text FILE --test-text FILE]

Every arm begins with the same pruned student and sees the same tokens in the same order for the same
steps; arms differ in what the teacher's distribution is cut down to, and in which positions count. A
seed changes the training documents, their order and every random draw. Learning rates are tuned for
each family of arms on validation text, which is neither trained on nor reported. Text is WikiText-2
where ../shared/data lies beside the project: its validation split for training and tuning, its test
split for the figures. Prints progress, a table, and one JSON object as the last line.
"""

import argparse
import contextlib
import gzip
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit
from torch import Tensor, nn

from limbeck.backends import load
from limbeck.distill import losses
from limbeck.distill.forward import Halves, split
from limbeck.distill.objective import LossSpec
from limbeck.distill.packing import Batch, Row, assemble, attention_mask, pack, rows_for_epoch
from limbeck.distill.positions import Selection, chosen_in_step, kept_count, narrow
from limbeck.distill.prune import keep_layers
from limbeck.distill.recipe import StudentRecipe, TrainRecipe
from limbeck.distill.store import StoreReader, StoreSpec, StoreWriter, describe, sparsify
from limbeck.distill.student import build_student, freeze_embeddings
from limbeck.distill.targets import Document, SparseTargets, Taught, concatenate
from limbeck.distill.torch_targets import TorchTargets
from limbeck.distill.train import Objective, learning_rate
from limbeck.model import LocalModel

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "text"
_TILE = 64
"""Positions whose dense distributions are held at once: 64 x 49,152 float32 is 13 MB."""
_DRAWS = 12
_TOP = 50
_CHARACTERS = 8
"""More than a token takes on average, so that no more text is tokenised than needed."""
_CALIBRATION = 16
_CONFIDENCE = 0.95
_KL, _CROSS_ENTROPY = LossSpec(), LossSpec(kind="cross_entropy")

Ids = np.ndarray[Any, np.dtype[np.int32]]
Say = Callable[[str], None]
"""Hears one line of progress."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is trained and measured."""

    layers: int
    """Layers of the student."""
    length: int
    """Tokens a document; one loss position fewer."""
    pool: int
    """Documents that training, tuning and validation draw from, at the most."""
    train: int
    """Documents a run trains on, once."""
    tune: int
    """Documents a tuning run trains on, once."""
    validation: int
    """Documents that choose a learning rate."""
    test: int
    """Documents that the figures are over."""
    rows: int
    """Documents a step."""
    rates: tuple[float, ...]
    """Learning rates that are tried; with one there is no tuning."""


FULL = Size(
    layers=6,
    length=256,
    pool=1000,
    train=56,
    tune=24,
    validation=8,
    test=16,
    rows=1,
    rates=(5e-4, 1e-3, 2e-3),
)
QUICK = Size(
    layers=4,
    length=128,
    pool=64,
    train=6,
    tune=0,
    validation=0,
    test=4,
    rows=1,
    rates=(1e-3,),
)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to teach."""

    label: str
    family: str
    """Arms of one family share the learning rate tuned for the family's first arm."""
    targets: str
    """Name of the targets; `dense` has none but the teacher's own states."""
    selection: Selection = field(default_factory=Selection)
    spec: LossSpec = _KL


STORES = {
    "default": StoreSpec(),
    "small": StoreSpec(head_threshold=0.2, tail_weight=0.28, tail_samples=4),
    "large": StoreSpec(head_threshold=0.05, tail_weight=0.07, tail_samples=16),
}
DENSE, OURS = "dense", "ours"
ARMS = {
    OURS: Arm("store, default *", "store", "default"),
    "ours_small": Arm("store, small", "store", "small"),
    "ours_large": Arm("store, large", "store", "large"),
    "ours_50": Arm("store, 50%", "positions", "default", Selection(0.5)),
    "ours_20": Arm("store, 20%", "positions", "default", Selection(0.2)),
    "ours_20_teacher": Arm(
        "store, 20% teacher", "positions", "default", Selection(0.2, "teacher_entropy")
    ),
    "ours_20_random": Arm("store, 20% random", "positions", "default", Selection(0.2, "random")),
    DENSE: Arm("dense, online", "dense", "dense"),
    "topk50": Arm("top 50, renormalised", "topk50", "topk50"),
    "rs12": Arm("12 random draws", "rs12", "rs12"),
    "cross_entropy": Arm("plain cross-entropy", "cross_entropy", "default", spec=_CROSS_ENTROPY),
}


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes; figures are rough")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, help="how many, at least 2; 3, or 2 with --quick")
    parser.add_argument("--train-text", type=Path, help="where the shared data are missing")
    parser.add_argument("--test-text", type=Path, help="where the shared data are missing")
    options = parser.parse_args()
    seeds = options.seeds or (2 if options.quick else 3)
    if seeds < 2:
        parser.error(f"--seeds must be at least 2, for an interval, got {seeds}")
    size = QUICK if options.quick else FULL
    teacher = load("packaged:smollm2-135m-instruct", dtype="bfloat16")
    train = documents(teacher, _text(options.train_text, "valid"), size.length, size.pool)
    test = documents(teacher, _text(options.test_text, "test"), size.length, size.test)
    console, started = Console(), time.perf_counter()

    def say(line: str) -> None:
        console.print(f"{time.perf_counter() - started:6.0f} s  {line}", highlight=False)

    found = measure(
        teacher, train, test, size, range(options.seed, options.seed + seeds), "bf16", say
    )
    found = {"quick": options.quick, "seed": options.seed} | found
    console.print(table(found))
    print(json.dumps(found))


# what the arms learn from


@dataclass(frozen=True, slots=True)
class Lesson:
    """Training documents with everything that any arm is told about them."""

    documents: Sequence[Document]
    states: Sequence[Tensor]
    """The teacher's last hidden states [N, D] at each document's loss positions: with its head they are
    its dense distributions, at 1/85 of the size."""
    targets: Mapping[str, Sequence[SparseTargets]]
    """Targets of each document, by name."""
    bytes_per_token: Mapping[str, float]
    """Of each store, everything counted."""


def documents(teacher: LocalModel, text: str, length: int, most: int) -> list[Document]:
    """Cut the beginning of a text into documents of so many tokens; only their last has no loss."""
    needed = text[: most * length * _CHARACTERS]
    ids = teacher.tokenizer(needed, add_special_tokens=False)["input_ids"][: most * length]
    pieces = np.asarray(ids[: len(ids) // length * length], np.int32).reshape(-1, length)
    loss_T = np.arange(length) < length - 1
    return [Document(p, loss_T, False, hashlib.sha256(p.tobytes()).hexdigest()) for p in pieces]


@torch.inference_mode()
def states_of(teacher: LocalModel, chosen: Sequence[Document]) -> list[Tensor]:
    """Return the teacher's last hidden states [N, D] at each document's loss positions."""
    decoder = split(teacher.model)
    return [
        decoder.hidden(torch.from_numpy(d.tokens_T).long()[None])[0][torch.from_numpy(d.loss_T)]
        for d in chosen
    ]


def log_probs(head: nn.Linear, states_ND: Tensor) -> Tensor:
    """Return float32 log-probabilities [N, V]."""
    return head(states_ND).float().log_softmax(-1)


def lesson(
    teacher: LocalModel, chosen: Sequence[Document], names: Sequence[str], seed: int
) -> Lesson:
    """Ask the teacher once, and cut its distributions down in every way that `names` asks for."""
    states = states_of(teacher, chosen)
    head = split(teacher.model).head
    makers = {name: _MAKERS[name] for name in dict.fromkeys(names) if name in _MAKERS}
    generators = {
        name: torch.Generator().manual_seed(seed * 1009 + place)
        for place, name in enumerate(_MAKERS)
    }
    made: dict[str, list[SparseTargets]] = {name: [] for name in makers}
    for states_ND in states:
        tiles: dict[str, list[SparseTargets]] = {name: [] for name in makers}
        for tile_ND in states_ND.split(_TILE):
            with torch.inference_mode():
                log_probs_NV = log_probs(head, tile_ND)
                for name, make in makers.items():
                    tiles[name].append(make(log_probs_NV, generators[name]))
        for name, parts in tiles.items():
            made[name].append(concatenate(parts))
    bytes_per_token: dict[str, float] = {}
    for name in made.keys() & STORES.keys():
        made[name], bytes_per_token[name] = _through_store(teacher, name, chosen, made[name])
    return Lesson(chosen, states, made, bytes_per_token)


def _through_store(
    teacher: LocalModel, name: str, chosen: Sequence[Document], made: Sequence[SparseTargets]
) -> tuple[list[SparseTargets], float]:
    """Write targets to disk and read them back, as a run would; return them with their size."""
    vocabulary = teacher.model.get_output_embeddings().weight.shape[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        with StoreWriter(
            folder,
            STORES[name],
            vocabulary=vocabulary,
            tokenizer_sha256=teacher.tokenizer_sha256,
            teacher={"name": "benchmark"},
        ) as writer:
            for document, targets in zip(chosen, made, strict=True):
                writer.append(Taught(document, targets))
            writer.finish()
        read = [taught.targets for taught in StoreReader(folder).documents()]
        return read, describe(folder)["bytes_per_token"]


def renormalised_top(log_probs_NV: Tensor, _: torch.Generator) -> SparseTargets:
    """Keep the 50 likeliest tokens and make them sum to 1: the tail is forgotten, a common bug."""
    top = log_probs_NV.exp().topk(min(_TOP, log_probs_NV.shape[1]))
    weights_NK = top.values / top.values.sum(-1, keepdim=True)
    count, width = weights_NK.shape
    return SparseTargets(
        offsets_N1=np.arange(count + 1) * width,
        ids_E=top.indices.flatten().int().numpy(),
        weights_E=weights_NK.flatten().numpy(),
        is_head_E=np.ones(count * width, np.bool_),
        tail_N=np.zeros(count, np.float32),
        entropy_N=torch.special.entr(weights_NK).sum(-1).numpy(),
    )


def random_draws(log_probs_NV: Tensor, generator: torch.Generator) -> SparseTargets:
    """Draw 12 tokens a position; each weighs its count over 12 (RS-KD, arXiv 2503.16870)."""
    probs_NV = log_probs_NV.exp()
    drawn_NK = torch.multinomial(probs_NV, _DRAWS, replacement=True, generator=generator)
    rows = [np.unique(row_K, return_counts=True) for row_K in drawn_NK.numpy()]
    weights_E = np.concatenate([counts for _, counts in rows]) / _DRAWS
    return SparseTargets(
        offsets_N1=np.cumsum([0, *(len(ids) for ids, _ in rows)]),
        ids_E=np.concatenate([ids for ids, _ in rows]).astype(np.int32),
        weights_E=weights_E.astype(np.float32),
        is_head_E=np.zeros(len(weights_E), np.bool_),
        tail_N=np.ones(len(rows), np.float32),
        entropy_N=-(probs_NV * log_probs_NV).sum(-1).numpy(),
    )


def _kept(name: str) -> Callable[[Tensor, torch.Generator], SparseTargets]:
    spec = STORES[name]
    return lambda log_probs_NV, generator: sparsify(log_probs_NV, None, spec, generator)


_MAKERS = {name: _kept(name) for name in STORES} | {
    "topk50": renormalised_top,
    "rs12": random_draws,
}


# training


def train(
    student: Any,
    head: nn.Linear,
    arm: Arm,
    told: Lesson,
    recipe: TrainRecipe,
    seed: int,
) -> int:
    """Train a student in place, as `limbeck.distill.train.train` does with one micro-batch a step.

    Args:
        student: Trained in place.
        head: The teacher's, for the dense arm.
        arm: What is minimised.
        told: Documents and targets.
        recipe: Batches, schedule, precision.
        seed: Decides packing and order.

    Returns:
        Loss positions that were trained on.
    """
    rows = pack([len(d.tokens_T) for d in told.documents], recipe.row_length, seed=seed)
    per_epoch = math.ceil(len(rows) / recipe.rows)
    steps = max(1, round(recipe.epochs * per_epoch))
    student.train()
    trainable = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable,
        lr=recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    learn = _dense(student, head, told) if arm.targets == DENSE else _sparse(student, arm, told)
    trained = 0
    for step in range(1, steps + 1):
        epoch, index = divmod(step - 1, per_epoch)
        chosen = rows_for_epoch(rows, seed=seed, epoch=epoch)[index * recipe.rows :][: recipe.rows]
        masks = chosen_in_step(arm.selection, _entropies(told, arm, chosen), seed=seed, step=step)
        kept_M = torch.from_numpy(np.flatnonzero(np.concatenate(masks)))
        positions = kept_count(len(kept_M), arm.selection.student_fraction)
        batch = assemble(chosen, told.documents, recipe.row_length, pad_id=0)
        with _precision(recipe.precision):
            learn(batch, kept_M, positions)
        nn.utils.clip_grad_norm_(trainable, recipe.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps)
        optimizer.step()
        optimizer.zero_grad()
        trained += positions
    student.eval()
    return trained


Learn = Callable[[Batch, Tensor, int], None]
"""Adds the gradient of a batch's loss, over some of its positions, to the student's parameters."""


def _sparse(student: Any, arm: Arm, told: Lesson) -> Learn:
    objective = Objective(student, arm.spec, arm.selection)
    targets = told.targets[arm.targets]

    def learn(batch: Batch, kept_M: Tensor, positions: int) -> None:
        said = TorchTargets.from_numpy(concatenate([targets[i] for i in batch.documents]))
        objective(*narrow(batch, said, kept_M), positions).backward()

    return learn


def _dense(student: Any, head: nn.Linear, told: Lesson) -> Learn:
    """Return a step against the teacher's full distributions, a tile of positions at a time."""
    halves = split(student)

    def learn(batch: Batch, kept_M: Tensor, positions: int) -> None:
        batch, _ = narrow(batch, None, kept_M)
        hidden_ND = _hidden(halves, batch)
        at_head_ND = hidden_ND.detach().requires_grad_()
        states_ND = torch.cat([told.states[i] for i in batch.documents])[kept_M]
        for ours_ND, theirs_ND in zip(at_head_ND.split(_TILE), states_ND.split(_TILE), strict=True):
            with torch.no_grad():
                p_log_NV = log_probs(head, theirs_ND)
            loss_N = losses.objective(_KL, p_log_NV, halves.head(ours_ND), None)
            losses.normalised(loss_N, positions).backward()
        hidden_ND.backward(at_head_ND.grad)

    return learn


def _hidden(halves: Halves, batch: Batch) -> Tensor:
    hidden_BTD = halves.hidden(
        batch.tokens_BT,
        attention_mask=attention_mask(batch.segments_BT),
        position_ids=batch.positions_BT,
    )
    return hidden_BTD.flatten(0, 1)[batch.loss_N]


def _entropies(told: Lesson, arm: Arm, rows: Sequence[Row]) -> list[np.ndarray[Any, Any]]:
    """Return the teacher's entropies of each row; zeros where the arm has none and chooses nothing."""
    if arm.targets == DENSE:
        return [
            np.zeros(sum(told.documents[i].positions for i in row.documents), np.float32)
            for row in rows
        ]
    targets = told.targets[arm.targets]
    return [np.concatenate([targets[i].entropy_N for i in row.documents]) for row in rows]


def _precision(precision: str) -> contextlib.AbstractContextManager[object]:
    if precision == "no":
        return contextlib.nullcontext()
    return torch.autocast("cpu", torch.bfloat16)


# measuring


@dataclass(frozen=True, slots=True)
class Exam:
    """Held-out documents with the teacher's states."""

    documents: Sequence[Document]
    states: Sequence[Tensor]


@torch.inference_mode()
def examine(student: Any, head: nn.Linear, exam: Exam, precision: str) -> tuple[float, float]:
    """Return mean KL(teacher || student) in nats, and the share of equal first choices."""
    halves = split(student)
    divergence = agreed = positions = 0.0
    for document, states_ND in zip(exam.documents, exam.states, strict=True):
        row = Row((0,), (0,))
        batch = assemble([row], [document], len(document.tokens_T), pad_id=0)
        with _precision(precision):
            hidden_ND = _hidden(halves, batch)
            for ours_ND, theirs_ND in zip(
                hidden_ND.split(_TILE), states_ND.split(_TILE), strict=True
            ):
                p_log_NV, q_log_NV = log_probs(head, theirs_ND), log_probs(halves.head, ours_ND)
                agreed += float((p_log_NV.argmax(-1) == q_log_NV.argmax(-1)).sum())
                kl_N = torch.linalg.vecdot(p_log_NV.exp(), p_log_NV - q_log_NV)
                divergence += float(kl_N.double().sum())
        positions += len(states_ND)
    return divergence / positions, agreed / positions


def measure(
    teacher: LocalModel,
    train_text: Sequence[Document],
    test_text: Sequence[Document],
    size: Size,
    seeds: Sequence[int],
    precision: Literal["no", "bf16"],
    say: Say,
) -> dict[str, Any]:
    """Tune, train and examine every arm, and return the figures.

    Args:
        teacher: The model to imitate.
        train_text: Documents to train on; the last `size.validation` of them choose learning rates.
        test_text: Documents that the figures are over.
        size: How much of everything.
        seeds: At least two.
        precision: Of matrix products in training and examination.
        say: Hears of every run.
    """
    pool = train_text[: len(train_text) - size.validation]
    if len(pool) < max(size.train, size.tune) or len(test_text) < size.test:
        raise SystemExit(
            f"needs {max(size.train, size.tune)} + {size.validation} documents to train and tune on and "
            f"{size.test} to test on, got {len(train_text)} and {len(test_text)}"
        )
    start = build_student(
        StudentRecipe(layers=size.layers, freeze_embeddings=True),
        teacher,
        pool[:_CALIBRATION],
        seed=0,
    ).model
    head = split(teacher.model).head
    base = TrainRecipe(row_length=size.length, rows=size.rows, precision=precision)

    def run(arm: Arm, told: Lesson, exam: Exam, rate: float, seed: int) -> tuple[float, float, int]:
        student = keep_layers(start, range(size.layers))
        freeze_embeddings(student)
        recipe = base.model_copy(update={"learning_rate": rate})
        trained = train(student, head, arm, told, recipe, seed)
        return *examine(student, head, exam, precision), trained

    exam = Exam(test_text[: size.test], states_of(teacher, test_text[: size.test]))
    rates, tuning = _tune(teacher, pool, train_text[len(pool) :], size, seeds[0], run, say)
    scores: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ARMS}
    sizes: dict[str, list[float]] = {name: [] for name in STORES}
    for seed in seeds:
        told = lesson(
            teacher, _draw(pool, size.train, seed), [a.targets for a in ARMS.values()], seed
        )
        for name, value in told.bytes_per_token.items():
            sizes[name].append(value)
        for name, arm in ARMS.items():
            scores[name].append(run(arm, told, exam, rates[arm.family], seed))
            kl, agreement, _ = scores[name][-1]
            say(f"seed {seed}  {arm.label:20} KL {kl:.4f}  agreement {agreement:.4f}")
    start_kl, start_agreement = examine(start, head, exam, precision)
    return {
        "seeds": list(seeds),
        "tokens": size.train * (size.length - 1),
        "test_positions": size.test * (size.length - 1),
        "student_layers": size.layers,
        "confidence": _CONFIDENCE,
        "default": OURS,
        "arms": {name: _arm_figures(name, scores[name], sizes, seeds) for name in ARMS},
        "differences_to_dense": {
            name: _difference(scores[name], scores[DENSE]) for name in ARMS if name != DENSE
        },
        "learning_rates": rates,
        "tuning": tuning,
        "untrained": {"kl": start_kl, "agreement": start_agreement},
    }


Run = Callable[[Arm, Lesson, Exam, float, int], tuple[float, float, int]]


def _tune(
    teacher: LocalModel,
    pool: Sequence[Document],
    validation: Sequence[Document],
    size: Size,
    seed: int,
    run: Run,
    say: Say,
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return each family's learning rate, the one of least validation KL, and what every rate reached."""
    first: dict[str, Arm] = {}
    for arm in ARMS.values():
        first.setdefault(arm.family, arm)
    if len(size.rates) == 1:
        return dict.fromkeys(first, size.rates[0]), {}
    told = lesson(
        teacher,
        _draw(pool, size.tune, seed + 7919),
        [arm.targets for arm in first.values()],
        seed + 7919,
    )
    exam = Exam(validation, states_of(teacher, validation))
    tuning: dict[str, dict[str, float]] = {}
    for family, arm in first.items():
        reached = {f"{rate:g}": run(arm, told, exam, rate, seed)[0] for rate in size.rates}
        tuning[family] = reached
        say(f"tuning {family:15} " + "  ".join(f"{r}: {kl:.4f}" for r, kl in reached.items()))
    return {family: float(min(r, key=r.__getitem__)) for family, r in tuning.items()}, tuning


def _draw(pool: Sequence[Document], count: int, seed: int) -> list[Document]:
    order = np.random.default_rng(seed).permutation(len(pool))
    return [pool[i] for i in order[:count]]


# figures


def interval(values: Sequence[float]) -> list[float]:
    """Return mean, low and high of Student's t interval over seeds."""
    mean, count = float(np.mean(values)), len(values)
    half = (
        float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2))
        * float(np.std(values, ddof=1))
        / math.sqrt(count)
    )
    return [mean, mean - half, mean + half]


def _arm_figures(
    name: str,
    scores: Sequence[tuple[float, float, int]],
    sizes: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
) -> dict[str, Any]:
    arm = ARMS[name]
    stored = arm.targets in STORES and arm.spec.needs_targets
    return {
        "label": arm.label,
        "kl": interval([kl for kl, _, _ in scores]),
        "agreement": interval([agreement for _, agreement, _ in scores]),
        "seeds": list(seeds),
        "tokens": scores[0][2],
        "positions": arm.selection.fraction,
        "bytes_per_token": float(np.mean(sizes[arm.targets])) if stored else None,
        "kl_by_seed": [kl for kl, _, _ in scores],
        "agreement_by_seed": [agreement for _, agreement, _ in scores],
    }


def _difference(
    scores: Sequence[tuple[float, float, int]], dense: Sequence[tuple[float, float, int]]
) -> dict[str, Any]:
    """Return the paired differences by seed, and what the KL interval says of them."""
    kl = interval([a[0] - b[0] for a, b in zip(scores, dense, strict=True)])
    agreement = interval([a[1] - b[1] for a, b in zip(scores, dense, strict=True)])
    _, low, high = kl
    verdict = "better" if high < 0 else "worse" if low > 0 else "not told apart"
    return {"kl": kl, "agreement": agreement, "verdict": verdict}


def table(found: Mapping[str, Any]) -> Table:
    """Return the figures for a terminal."""
    mark = " (quick: rough)" if found["quick"] else ""
    rates = ", ".join(f"{family} {rate:g}" for family, rate in found["learning_rates"].items())
    shown = Table(
        title=f"{found['tokens']:,} training tokens, {len(found['seeds'])} seeds, "
        f"{found['test_positions']:,} test positions{mark}",
        caption=f"* the default budget; 50% and 20% of positions, by the student's entropy unless named\n"
        f"±: {found['confidence']:.0%} t interval over seeds; differences are paired by seed\n"
        f"learning rates: {rates}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("", no_wrap=True)
    for column in ("bytes", "KL, nats", "minus dense", "agreement"):
        shown.add_column(column, justify="right", no_wrap=True)
    for name, arm in ARMS.items():
        row, against = found["arms"][name], found["differences_to_dense"].get(name)
        size = row["bytes_per_token"]
        shown.add_row(
            arm.label,
            "" if size is None else f"{size:.1f}",
            _within(row["kl"], ".3f"),
            "" if against is None else _within(against["kl"], "+.4f"),
            _within(row["agreement"], ".3f"),
            style="bold" if name == OURS else None,
        )
    return shown


def _within(values: Sequence[float], form: str) -> str:
    mean, _, high = values
    return f"{mean:{form}} ±{high - mean:{form.removeprefix('+')}}"


def _text(path: Path | None, part: str) -> str:
    if path is not None:
        return path.read_text(encoding="utf-8")
    shared = _DATA / f"wikitext2.{part}.txt.gz"
    if not shared.is_file():
        raise SystemExit("no ../shared/data here: give --train-text and --test-text, UTF-8 prose")
    return gzip.decompress(shared.read_bytes()).decode()


if __name__ == "__main__":
    main()
