"""A task with right answers, end to end: intents and slots of SNIPS, teacher fine-tuned, student distilled.

    python benchmarks/task.py [--quick] [--data DIR] [--work DIR] [--train N] [--on valid] [--prepare]

`recipes/snips-teacher.toml` fine-tunes the teacher on gold answers. `recipes/snips.toml` distils it into a student
of a third of its size; that run's cross-entropy control is the same start trained on the gold answers alone, in the
same order, for the same steps. A TF-IDF tagger learns from the same utterances. All four are asked the official
test set, and an answer is right when intent, slots and values are all as in the gold frame. Recipes were tuned on
the validation split, with `--on valid` and `--set-student` or `--set-teacher`.

What is done is kept in the work folder under a hash of what decided it; speed is measured anew each time. Prints
progress, a table, and one JSON object as the last line.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from exam import Duel, Share, answer, duel, share
from rich.console import Console
from rich.table import Table
from snips import Split, Utterance, draw, read_split, stated_intent
from tagger import fit, name

import limbeck
from limbeck.artefact import read_json, sha256_file, sha256_json, write_json, write_text
from limbeck.backends import load
from limbeck.chat import Message
from limbeck.distill.corpus import Chat, Record, prompt_ids
from limbeck.distill.recipe import Recipe, load_recipe
from limbeck.distill.speed import Speed, measure_speed
from limbeck.errors import LimbeckError, RunError
from limbeck.model import LocalModel
from limbeck.progress import Progress
from limbeck.terminal import TerminalProgress

_ROOT = Path(__file__).resolve().parents[1]
_DATA = _ROOT.parent / "shared" / "data" / "tasks"
_INSTRUCTION = "Parse."
_CORPUS = "train.jsonl"
_COST = 3.0
"""`C` of the baseline's support vector machines; the best of 1, 3 and 10 on the validation split."""
ARMS = {
    "teacher": "Teacher, fine-tuned",
    "student": "Student, distilled",
    "gold_only": "Student, gold labels only",
    "tfidf": "TF-IDF, linear",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the figures."""

    data: Path
    """Folder with `snips.{train,valid,test}.jsonl`, `.gz` too."""
    work: Path
    teacher: str
    """Where the teacher starts, as `teacher.model` takes it."""
    on: Split
    """The split that is asked."""
    train: int | None
    """Utterances to train on at the most, drawn by seed."""
    exam: int | None
    """Utterances to ask at the most, drawn by seed."""
    seed: int
    quick: bool
    set_teacher: tuple[str, ...]
    """Overrides of recipes/snips-teacher.toml."""
    set_student: tuple[str, ...]
    """Overrides of recipes/snips.toml."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What one arm got right, question by question."""

    exact: tuple[bool, ...]
    intent: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Arms:
    """The folders of the trained models."""

    teacher: Path
    student: Path
    gold_only: Path


def main() -> None:
    """Run what is not done yet, print the table and the JSON line."""
    plan, prepare = _options()
    try:
        if prepare:
            print(write_corpus(plan, read_split(plan.data, "train")))
            return
        with TerminalProgress(Console(width=110)) as progress:
            found = measure(plan, progress)
    except LimbeckError as error:
        raise SystemExit(f"task.py: {error}") from None
    Console(width=110).print(table(found))
    print(json.dumps(found))


def _options() -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes; figures are rough")
    parser.add_argument("--data", type=Path, default=_DATA, help="folder of snips.*.jsonl[.gz]")
    parser.add_argument("--work", type=Path, default=_ROOT / "runs" / "task")
    parser.add_argument("--teacher", default="packaged:smollm2-135m-instruct")
    parser.add_argument("--on", choices=("test", "valid"), default="test", help="who is asked")
    parser.add_argument("--train", type=int, help="utterances to train on; all, 160 with --quick")
    parser.add_argument("--exam", type=int, help="utterances to ask; all, or 32 with --quick")
    parser.add_argument("--seed", type=int, default=0)
    for flag in ("--set-teacher", "--set-student"):
        parser.add_argument(flag, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--prepare", action="store_true", help="write the corpus only")
    given = vars(parser.parse_args())
    for key, quick in (("train", 160), ("exam", 32)):
        given[key] = quick if given[key] is None and given["quick"] else given[key]
        if given[key] is not None and given[key] < 2:
            parser.error(f"--{key} must be at least 2, got {given[key]}")
    prepare = given.pop("prepare")
    for who in ("set_teacher", "set_student"):
        given[who] = tuple(given[who])
    return Plan(**given), prepare


def measure(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Train, ask and time whatever the work folder does not hold yet, and return the figures."""
    began = time.perf_counter()
    train = draw(read_split(plan.data, "train"), plan.train, plan.seed)
    exam = draw(read_split(plan.data, plan.on), plan.exam, plan.seed)
    corpus = write_corpus(plan, train)
    arms = make_arms(plan, corpus, progress)
    marks = {name: mark(texts, exam) for name, texts in _answers(plan, arms, exam, progress)}
    baseline = [f.text for f in name(fit(train, cost=_COST), exam)]
    marks["tfidf"] = mark(baseline, exam)
    speed = _time(arms, exam, rounds=3 if plan.quick else 9, progress=progress)
    return _figures(plan, arms, marks, speed, train) | {"seconds": time.perf_counter() - began}


# training


def chat_of(utterance: Utterance) -> Chat:
    """Return the turns that ask for an utterance's frame."""
    return Message("system", _INSTRUCTION), Message("user", utterance.text)


def write_corpus(plan: Plan, train: Sequence[Utterance]) -> Path:
    """Write gold answers as chats, one a line, and return the file."""
    chats = [(*chat_of(u), Message("assistant", u.frame.text)) for u in train]
    lines = [json.dumps({"messages": [m.as_dict() for m in chat]}) + "\n" for chat in chats]
    path = plan.work / _CORPUS
    write_text(path, "".join(lines))
    return path


def make_arms(plan: Plan, corpus: Path, progress: Progress) -> Arms:
    """Fine-tune the teacher, then distil it; both runs go on where they were stopped."""
    origin = [f"teacher.model={json.dumps(plan.teacher)}"]
    start = [f"student.folder={json.dumps(plan.teacher)}"]
    teacher = _run("snips-teacher", plan, corpus, [*origin, *start, *plan.set_teacher], progress)
    tuned = [f"teacher.model={json.dumps(f'{teacher.name}/student')}"]
    student = _run("snips", plan, corpus, [*tuned, *plan.set_student], progress)
    return Arms(teacher / "student", student / "student", student / "controls/cross_entropy")


def _run(stem: str, plan: Plan, corpus: Path, overrides: Sequence[str], progress: Progress) -> Path:
    """Run a shipped recipe in a folder of the work folder that is named after all that decides it."""
    given = [f"corpus.files={json.dumps([corpus.name])}", f"seed={plan.seed}", *overrides]
    recipe: Recipe = load_recipe(_ROOT / "recipes" / f"{stem}.toml", given)
    decided = sha256_json({"recipe": recipe.as_json(), "corpus": sha256_file(corpus)})
    folder = plan.work / f"{stem}-{decided[:12]}"
    limbeck.distill(recipe, out=folder, base=plan.work, resume=True, progress=progress)
    return folder


# asking


def mark(texts: Sequence[str], exam: Sequence[Utterance]) -> Marks:
    """Compare answers with gold: word for word, and by the intent that they open with."""
    return Marks(
        exact=tuple(text == u.frame.text for text, u in zip(texts, exam, strict=True)),
        intent=tuple(stated_intent(text) == u.intent for text, u in zip(texts, exam, strict=True)),
    )


def _answers(
    plan: Plan, arms: Arms, exam: Sequence[Utterance], progress: Progress
) -> list[tuple[str, list[str]]]:
    """Ask each model the whole exam, or read what it said before."""
    return [
        (arm, _kept(plan, arm, folder, exam, progress))
        for arm, folder in (
            ("teacher", arms.teacher),
            ("student", arms.student),
            ("gold_only", arms.gold_only),
        )
    ]


def _kept(
    plan: Plan, arm: str, folder: Path, exam: Sequence[Utterance], progress: Progress
) -> list[str]:
    weights = sha256_file(folder / "model.safetensors")
    decided = sha256_json({"weights": weights, "exam": [u.text for u in exam]})
    path = plan.work / "answers" / f"{arm}-{decided[:12]}.json"
    if path.is_file():
        return read_json(path)
    progress.begin(f"ask {arm.replace('_', ' ')}", None, "")
    local = _load(folder)
    # No gold answer is read here: the longest one of the training text sets the limit.
    texts = answer(local, _prompts(local, exam), most=_longest(plan, local))
    write_json(path, texts)
    progress.end(f"{len(texts)} answers")
    return texts


def _load(folder: Path) -> LocalModel:
    return load(str(folder.resolve()), dtype="bfloat16")


def _prompts(local: LocalModel, exam: Sequence[Utterance]) -> list[list[int]]:
    return [
        prompt_ids(Record(chat_of(u), "", True, u.text), local.tokenizer).tolist() for u in exam
    ]


def _longest(plan: Plan, local: LocalModel) -> int:
    """Return the tokens of the longest training answer, its end included."""
    with (plan.work / _CORPUS).open(encoding="utf-8") as file:
        texts = [json.loads(line)["messages"][-1]["content"] for line in file]
    return max(map(len, local.tokenizer(texts, add_special_tokens=False)["input_ids"])) + 1


def _time(arms: Arms, exam: Sequence[Utterance], *, rounds: int, progress: Progress) -> Speed:
    """Time teacher and student in turns on questions of the exam, one at a time."""
    teacher, student = _load(arms.teacher), _load(arms.student)
    prompts = _prompts(teacher, exam[:rounds])
    return measure_speed(
        teacher.model, student.model, prompts, tokens=24, rounds=rounds, progress=progress
    )


# figures


def _figures(
    plan: Plan, arms: Arms, marks: dict[str, Marks], speed: Speed, train: Sequence[Utterance]
) -> dict[str, Any]:
    exact: dict[str, Share] = {arm: share(m.exact) for arm, m in marks.items()}
    over_gold: Duel = duel(marks["student"].exact, marks["gold_only"].exact)
    parameters = _parameters(arms)
    return {
        "quick": plan.quick,
        "seed": plan.seed,
        "split": plan.on,
        "train_utterances": len(train),
        "asked": exact["student"].asked,
        **{f"{arm}_exact_match": exact[arm].as_list() for arm in ARMS},
        **{f"{arm}_intent_accuracy": share(marks[arm].intent).as_list() for arm in ARMS},
        "student_against_gold_only": {
            "only_student_right": over_gold.only_first,
            "only_gold_only_right": over_gold.only_second,
            "mcnemar_p": over_gold.p,
        },
        "parameters": parameters,
        "parameter_ratio": parameters["student"] / parameters["teacher"],
        "speed_ratio": speed.ratio.median,
        "speed_ratio_range": [speed.ratio.low, speed.ratio.high],
        "cost_ratio": speed.cost_ratio,
        "threads": torch.get_num_threads(),
    }


def _parameters(arms: Arms) -> dict[str, int]:
    counts: dict[str, int] = read_json(arms.student.parent / "report.json")["parameters"]
    if set(counts) != {"teacher", "student"}:
        raise RunError(f"{arms.student.parent / 'report.json'} does not count teacher and student")
    return counts


def table(found: dict[str, Any]) -> Table:
    """Return the figures for reading."""
    title = f"SNIPS {found['split']}, {found['asked']} utterances; {found['train_utterances']:,} to learn from"
    shown = Table("arm", title=title + (" (quick: rough)" if found["quick"] else ""))
    for heading in ("parameters", "exact match", "95%", "intent", "speed"):
        shown.add_column(heading, justify="right")
    sizes: dict[str, int] = found["parameters"]
    for arm, label in ARMS.items():
        mean, low, high = found[f"{arm}_exact_match"]
        size = {"gold_only": sizes["student"]}.get(arm, sizes.get(arm))
        fast = {"teacher": 1.0, "student": found["speed_ratio"]}.get(arm)
        shown.add_row(
            label,
            "" if size is None else f"{size / 1e6:.1f}M",
            f"{mean:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{found[f'{arm}_intent_accuracy'][0]:.1%}",
            "" if fast is None else f"{fast:.2f}x",
        )
    return shown


if __name__ == "__main__":
    main()
