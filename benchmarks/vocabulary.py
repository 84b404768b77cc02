"""What trimming the vocabulary buys: the same parameters as layers instead of unused tokens.

    python benchmarks/vocabulary.py [--quick] [--vocabulary 8192] [--layers 10] [--seeds N] [--other-text FILE]

The text is the quickstart's: the teacher answers its prompts, and its distributions are kept as it writes.
Every student is pruned out of the teacher and trained on the same answers, in the same order, for the same
steps, with frozen embeddings as in the quickstart:

- `full`: all tokens, `--layers` layers;
- `same layers`: the trimmed vocabulary, as many layers, so fewer parameters;
- `same parameters`: the trimmed vocabulary, and the layers that the saved parameters pay for;
- `corpus`: only the tokens that the text needs, and the layers that this pays for.

Held-out figures are over the first trim's tokens for all arms, the full one's distribution given those
tokens, so that they compare (`limbeck.distill.vocabulary` has the formula). The corpus trim has another set of
tokens, so its KL stands by itself, beside the full student's over the same set. Intervals are over
documents, clustered; training noise is what seeds differ by. The cost is measured on other text (WikiText-2's
test split where ../shared/data lies beside the project): pieces and nats a byte. Prints progress, a table, and
one JSON object as the last line.
"""

import argparse
import copy
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from limbeck.backends import load
from limbeck.distill.capture import answer_prompts
from limbeck.distill.corpus import Prompt, read_records, tokenise_prompts
from limbeck.distill.embedding import keep_tokens
from limbeck.distill.evaluate import Heldout, measure_fidelity
from limbeck.distill.objective import LossSpec
from limbeck.distill.recipe import Recipe, StudentRecipe, load_recipe
from limbeck.distill.speed import write_greedily
from limbeck.distill.store import StoreSpec
from limbeck.distill.student import Student, build_student
from limbeck.distill.targets import Document, Taught
from limbeck.distill.train import train
from limbeck.distill.trim import decide
from limbeck.distill.vocabulary import Size, Vocabulary, coverage, lessons
from limbeck.model import LocalModel
from limbeck.progress import Silent

_RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "quickstart.toml"
_OTHER = Path(__file__).resolve().parents[2] / "shared" / "data" / "text" / "wikitext2.test.txt.gz"
_CALIBRATION = 64
_CHUNK = 256
_ROUNDS = 5
_SPEED_TOKENS = 48
_WIDTH = 110
"""Columns of the table, wherever it is printed."""

Say = Callable[[str], None]
FULL, SAME_LAYERS, SAME_PARAMETERS, CORPUS = "full", "same layers", "same parameters", "corpus"


@dataclass(frozen=True, slots=True)
class Arm:
    """One student."""

    vocabulary: Vocabulary | None
    layers: int


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few prompts; figures are rough")
    parser.add_argument("--vocabulary", type=int, default=8192, help="tokens of the trim")
    parser.add_argument("--layers", type=int, default=10, help="layers of the full student")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each student")
    parser.add_argument("--prompts", type=int, help="prompts answered; 512, or 96 with --quick")
    parser.add_argument("--other-text", type=Path, default=_OTHER, help="text outside the domain")
    options = parser.parse_args()
    recipe = load_quickstart(options.prompts or (96 if options.quick else 512))
    other = _text(options.other_text)[: 40_000 if options.quick else 200_000]
    teacher = load(recipe.teacher.model, dtype=recipe.teacher.dtype)
    console, started = Console(width=_WIDTH), time.perf_counter()

    def say(line: str) -> None:
        console.print(f"{time.perf_counter() - started:6.0f} s  {line}", highlight=False)

    taught = answers(teacher, recipe)
    say(f"{len(taught)} answers, {sum(len(t.targets) for t in taught):,} positions")
    found = measure(
        teacher, taught, recipe, other, options.vocabulary, options.layers, options.seeds, say
    )
    found = {"quick": options.quick} | found
    console.print(table(found))
    print(json.dumps(found))


def load_quickstart(prompts: int) -> Recipe:
    """Return the quickstart's recipe with so many prompts."""
    return load_recipe(_RECIPE, [f"corpus.limit={prompts}"])


def answers(teacher: LocalModel, recipe: Recipe) -> list[Taught]:
    """Let the teacher answer the recipe's prompts, with its distributions."""
    if recipe.generate is None:
        raise SystemExit(f"recipe {recipe.name} has no [generate] section")
    corpus = read_records(recipe.corpus, base=_RECIPE.parent, seed=recipe.seed)
    longest = recipe.corpus.max_length - recipe.generate.max_new_tokens
    prompts: Sequence[Prompt] = tokenise_prompts(
        corpus, teacher.tokenizer, max_length=longest
    ).prompts
    return list(answer_prompts(teacher, prompts, recipe.generate, StoreSpec(), seed=recipe.seed))


def _text(path: Path) -> str:
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; name a text outside the domain with --other-text")
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def measure(
    teacher: LocalModel,
    taught: Sequence[Taught],
    recipe: Recipe,
    other: str,
    vocabulary: Size,
    layers: int,
    seeds: int,
    say: Say,
) -> dict[str, Any]:
    """Train and measure every arm, and return the figures.

    Args:
        teacher: The model to imitate.
        taught: Answers, some held out.
        recipe: How students are trained.
        other: Text outside the domain.
        vocabulary: Size of the first trim.
        layers: Of the full student.
        seeds: Trainings of each arm.
        say: Hears of every run.
    """
    training = [t for t in taught if not t.document.heldout]
    heldout = [t.document for t in taught if t.document.heldout]
    trims = {size: decide(teacher, training, size) for size in (vocabulary, "corpus")}
    arms = _arms(teacher, trims[vocabulary], trims["corpus"], layers)
    calibration = sorted((t.document for t in training), key=lambda d: d.key)[:_CALIBRATION]
    starts = {
        name: build_student(
            StudentRecipe(layers=arm.layers, freeze_embeddings=True),
            teacher,
            calibration,
            seed=0,
            vocabulary=arm.vocabulary,
        )
        for name, arm in arms.items()
    }
    runs = []
    for seed in range(seeds):
        ended = {name: trained(s, arms[name], training, recipe, seed) for name, s in starts.items()}
        students = {name: student for name, (student, _) in ended.items()}
        figures = _figures(teacher, students, trims, vocabulary, heldout, recipe)
        for name, (_, seconds) in ended.items():
            figures[name]["train_seconds"] = seconds
            say(f"seed {seed}  {name:16} KL {figures[name]['kl'][0]:.4f}  trained {seconds:.0f} s")
        figures["speed_ratio"] = _speed(students, arms, heldout)
        figures["other"] = _on_other_text(teacher, students, other)
        runs.append(figures)
    return {
        "arms": {
            name: {
                "tokens": len(s.tokenizer),
                "layers": s.record.layers,
                "parameters": s.record.parameters,
                "trainable": s.record.trainable_parameters,
            }
            for name, s in starts.items()
        },
        "training_positions": sum(len(t.targets) for t in training),
        "coverage": {
            str(size): coverage(heldout, trim, row_length=recipe.train.row_length).as_dict()
            for size, trim in trims.items()
        },
        "runs": runs,
    }


def _arms(teacher: LocalModel, trim: Vocabulary, corpus: Vocabulary, layers: int) -> dict[str, Arm]:
    """Spend what a trim saves on layers, at most as many parameters as the full student has."""
    width = teacher.model.config.hidden_size
    each = sum(p.numel() for p in teacher.model.model.layers[0].parameters())
    most = teacher.model.config.num_hidden_layers

    def paid(vocabulary: Vocabulary) -> int:
        saved = (vocabulary.teacher_size - len(vocabulary)) * width
        return min(most, layers + saved // each)

    return {
        FULL: Arm(None, layers),
        SAME_LAYERS: Arm(trim, layers),
        SAME_PARAMETERS: Arm(trim, paid(trim)),
        CORPUS: Arm(corpus, paid(corpus)),
    }


def trained(
    start: Student, arm: Arm, training: Sequence[Taught], recipe: Recipe, seed: int
) -> tuple[Student, float]:
    """Train a copy of a start as a run would, and return it with the seconds of its steps."""
    model = copy.deepcopy(start.model)
    told = list(training)
    if arm.vocabulary is not None:
        told = list(lessons(training, arm.vocabulary, row_length=recipe.train.row_length))
    with tempfile.TemporaryDirectory() as scratch:
        done = train(
            model,
            told,
            recipe.train.model_copy(update={"checkpoint_every": 10**9}),
            LossSpec(),
            Path(scratch),
            seed=seed,
            resume=False,
            progress=Silent(),
        )
    return Student(model, start.tokenizer, start.record), sum(e.seconds for e in done.log)


def _figures(
    teacher: LocalModel,
    students: dict[str, Student],
    trims: dict[Size, Vocabulary],
    vocabulary: Size,
    heldout: Sequence[Document],
    recipe: Recipe,
) -> dict[str, Any]:
    """Measure each trim's students beside the full one given the same tokens, and the full one as it is."""
    rows = teacher.model.get_input_embeddings().weight.shape[0]
    precision: Literal["no", "bf16"] = "bf16" if recipe.teacher.dtype == "bfloat16" else "no"

    def fidelity(models: dict[str, Any], trim: Vocabulary | None) -> Heldout:
        return measure_fidelity(
            teacher.model,
            models,
            heldout,
            np.ones(rows, np.int64),
            precision=precision,
            batch_tokens=recipe.capture.batch_tokens,
            progress=Silent(),
            vocabulary=trim,
        )

    full = students[FULL].model
    narrow = {size: copy.deepcopy(full) for size in trims}
    for size, model in narrow.items():
        keep_tokens(model, trims[size])  # its distribution given the kept tokens
    trimmed = {name: students[name].model for name in (SAME_PARAMETERS, SAME_LAYERS)}
    first = fidelity(trimmed | {FULL: narrow[vocabulary]}, trims[vocabulary])
    corpus = fidelity({CORPUS: students[CORPUS].model, FULL: narrow["corpus"]}, trims["corpus"])
    whole = fidelity({FULL: full}, None)
    figures = {name: _arm(arm) for name, arm in first.arms.items()}
    figures[CORPUS] = _arm(corpus.arms[CORPUS]) | {"full_kl": _pair(corpus.arms[FULL].kl)}
    figures[FULL]["kl_over_all_tokens"] = _pair(whole.arms[FULL].kl)
    for name, heard in ((SAME_PARAMETERS, first), (CORPUS, corpus)):
        against = next(d for d in heard.differences if d.baseline == FULL)
        figures[name]["minus_full"] = {"kl": _pair(against.kl), "top1": _pair(against.top1)}
        figures[name]["lost_mass"] = heard.lost_mass.value if heard.lost_mass else 0.0
    return figures | {"positions": {"first": first.positions, "corpus": corpus.positions}}


def _arm(arm: Any) -> dict[str, Any]:
    return {"kl": _pair(arm.kl), "agreement": _pair(arm.top1)}


def _pair(estimate: Any) -> list[float]:
    low, high = estimate.interval or (float("nan"), float("nan"))
    return [estimate.value, low, high]


def _speed(
    students: dict[str, Student], arms: dict[str, Arm], heldout: Sequence[Document]
) -> dict[str, list[float]]:
    """Return each arm's generation speed over the full one's: median, least and largest of the rounds."""
    prompt = heldout[0].tokens_T[: int(np.flatnonzero(heldout[0].loss_T)[0]) + 1].tolist()
    models = {n: copy.deepcopy(s.model).bfloat16() for n, s in students.items()}
    prompts = {
        n: prompt if a.vocabulary is None else a.vocabulary.spell(prompt) for n, a in arms.items()
    }
    ratios: dict[str, list[float]] = {name: [] for name in students if name != FULL}
    for turn in range(_ROUNDS + 1):  # the first warms up
        seconds: dict[str, float] = {}
        for name in list(models) if turn % 2 else list(models)[::-1]:
            start = time.perf_counter()
            write_greedily(models[name], prompts[name], _SPEED_TOKENS)
            seconds[name] = time.perf_counter() - start
        for name, values in ratios.items():
            if turn:
                values.append(seconds[FULL] / seconds[name])
    return {name: [median(v), min(v), max(v)] for name, v in ratios.items()}


@torch.inference_mode()
def _on_other_text(
    teacher: LocalModel, students: dict[str, Student], text: str
) -> dict[str, dict[str, float]]:
    """Return tokens a byte and nats a byte of every model on text outside the domain."""
    told = {"teacher": (teacher.model, teacher.tokenizer)}
    told |= {name: (s.model, s.tokenizer) for name, s in students.items()}
    size = len(text.encode())
    figures: dict[str, dict[str, float]] = {}
    for name, (model, tokenizer) in told.items():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        nats = predicted = 0.0
        for start in range(0, len(ids) - 1, _CHUNK):
            piece_BT = torch.tensor([ids[start : start + _CHUNK]])
            if piece_BT.shape[1] < 2:
                break
            with torch.autocast("cpu", torch.bfloat16):
                logits_TV = model(piece_BT).logits[0, :-1]
            log_TV = logits_TV.float().log_softmax(-1)
            nats -= float(log_TV.gather(-1, piece_BT[0, 1:, None]).double().sum())
            predicted += piece_BT.shape[1] - 1
        figures[name] = {
            "tokens_per_byte": len(ids) / size,
            # The first token of a piece is predicted from nothing by no model: scale to all tokens.
            "nats_per_byte": nats * len(ids) / predicted / size,
        }
    return figures


def table(found: dict[str, Any]) -> Table:
    """Return the figures for a terminal, one line a run and arm."""
    shown = Table(
        title=f"{found['training_positions']:,} training positions"
        + (" (quick: rough)" if found["quick"] else ""),
        caption="KL and agreement over the first trim's tokens; the corpus arm over its own\n"
        "[...]: 95% over documents; speed: median of interleaved rounds over the full student",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("", no_wrap=True)
    for column in ("tokens", "layers", "params", "KL, nats", "agreement", "speed", "other, nats/B"):
        shown.add_column(column, justify="right", no_wrap=True)
    for run in found["runs"]:
        for name, arm in found["arms"].items():
            kl, low, high = run[name]["kl"]
            speed = run["speed_ratio"].get(name, [1.0])[0]
            shown.add_row(
                name,
                f"{arm['tokens']:,}",
                str(arm["layers"]),
                f"{arm['parameters'] / 1e6:.1f}M",
                f"{kl:.3f} [{low:.3f}, {high:.3f}]",
                f"{run[name]['agreement'][0]:.1%}",
                f"{speed:.2f}",
                f"{run['other'][name]['nats_per_byte']:.2f}",
            )
    return shown


if __name__ == "__main__":
    main()
