"""What a copier's student gains from the answers that were released before cut-off.

    python benchmarks/guard_gain.py --released N [N ...] [--pool 600] [--seeds 3] [--quick] [--data DIR] [--work DIR] [--teacher MODEL]

The teacher is a parser of SNIPS requests (fine-tuned by `recipes/snips-teacher.toml`, as `task.py` does it, or given as
`--teacher`). A campaign asks it `--pool` utterances; the guard cuts it off after `--released` answers. Students are made
with `limbeck distill` out of the public SmolLM2-135M, by pruning, and learn the teacher's answers as text, which is all
that its interface gives:

- `undefended`: all answers of the pool;
- `cut_off`: the first `--released` of them;
- `random`: as many, drawn from the whole pool, another draw for each seed.

All are asked the same test utterances. A gain is what a student scores above
the undistilled start, which scores 0; `gain_released` is the gain at cut-off as a share of the undefended gain. The score
is F1 of the slots (intent, name and value must all be right); exact frames, which a small student seldom gets, and the
intent alone, which is easy, are told beside it. A student with fewer answers sees them more often. Prints a
table and one JSON line; what is done is kept in the work folder under a hash of what decided it.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import task
from exam import answer
from rich.console import Console
from rich.table import Table
from snips import Utterance, draw, parse, read_split

import limbeck
from limbeck.artefact import read_json, sha256_file, sha256_json, write_json, write_text
from limbeck.backends import load
from limbeck.chat import Message
from limbeck.distill.corpus import Record, prompt_ids
from limbeck.distill.recipe import load_recipe
from limbeck.errors import LimbeckError
from limbeck.model import LocalModel
from limbeck.progress import Progress
from limbeck.terminal import TerminalProgress

_ROOT = Path(__file__).resolve().parents[1]
_STUDENT = (
    "student.layers=8", "student.intermediate=640", "student.freeze_embeddings=true", 'capture.targets="none"',
    'loss.kind="cross_entropy"', "train.rows=2", "evaluate.controls=false", "evaluate.documents=8", "evaluate.samples=1",
    "evaluate.speed_rounds=3", "evaluate.speed_tokens=2", "corpus.heldout_fraction=0.02",
)  # fmt: skip
_EPOCHS = 4.0
_MOST_EPOCHS = 16.0
"""Passes over the pool, and over few answers at the most."""
SCORES = {
    "slot_f1": "gain_released",
    "exact": "exact_gain_released",
    "intent": "intent_gain_released",
}
Arm = tuple[str, int]
"""Which answers a student learns from, and how many."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the figures."""

    data: Path
    work: Path
    teacher: str | None
    base: str
    """The public model that students are pruned from."""
    pool: int
    released: tuple[int, ...]
    seeds: int
    exam: int
    quick: bool
    set_student: tuple[str, ...]


def main() -> None:
    """Train what is not trained yet, ask, and print the figures."""
    plan = _options()
    try:
        with TerminalProgress(Console(width=110)) as progress:
            found = measure(plan, progress)
    except LimbeckError as error:
        raise SystemExit(f"guard_gain.py: {error}") from None
    Console(width=110).print(table(found))
    print(json.dumps(found))


def _options() -> Plan:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data" / "tasks")
    parser.add_argument("--work", type=Path, default=_ROOT / "runs" / "guard-gain")
    parser.add_argument(
        "--teacher", help="a fine-tuned parser; without it one is made, for hours on two cores"
    )
    parser.add_argument("--base", default="packaged:smollm2-135m-instruct")
    parser.add_argument(
        "--pool", type=int, default=600, help="answers that an undefended campaign gets"
    )
    parser.add_argument(
        "--released", type=int, nargs="+", required=True, help="answers before cut-off"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--exam", type=int, default=200, help="test utterances")
    parser.add_argument("--quick", action="store_true", help="one seed and a small exam; rough")
    parser.add_argument("--set-student", action="append", default=[], metavar="KEY=VALUE")
    given = vars(parser.parse_args())
    if given["quick"]:
        given |= {"seeds": 1, "exam": min(32, given["exam"])}
    if wrong := [n for n in given["released"] if not 2 <= n < given["pool"]]:
        parser.error(
            f"--released must be from 2 to below the pool of {given['pool']}, got {wrong[0]}"
        )
    return Plan(**given | {key: tuple(given[key]) for key in ("released", "set_student")})


def measure(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Return the figures of all students."""
    pool, exam = utterances(plan)
    teacher = plan.teacher or str(_teacher(plan, progress))
    said = _answers(plan, "teacher", teacher, pool, progress)
    marks: dict[Arm, list[dict[str, float]]] = {}
    for seed in range(plan.seeds):
        for arm, places in subsets(plan, seed).items():
            asked, learned = [pool[n] for n in places], [said[n] for n in places]
            student = _student(plan, asked, learned, seed, progress)
            texts = _answers(plan, f"{arm[0]}-{arm[1]}-{seed}", str(student), exam, progress)
            marks.setdefault(arm, []).append(mark(texts, exam))
    right = sum(text == u.frame.text for text, u in zip(said, pool, strict=True)) / len(pool)
    return figures(plan, marks) | {"teacher_exact_on_pool": right}


def utterances(plan: Plan) -> tuple[list[Utterance], list[Utterance]]:
    """Return the pool that is asked, drawn so that a teacher's own 2,000 training utterances are not in it, and the exam."""
    train = read_split(plan.data, "train")
    known = {u.text for u in draw(train, 2000, 0)} if len(train) > 2 * 2000 else set[str]()
    fresh = [u for u in train if u.text not in known]
    pool = draw(fresh, plan.pool, 1)
    order = np.random.default_rng(2).permutation(len(pool))
    return [pool[int(n)] for n in order], draw(read_split(plan.data, "test"), plan.exam, 0)


def subsets(plan: Plan, seed: int) -> dict[Arm, list[int]]:
    """Return which places of the pool each student learns from."""
    found: dict[Arm, list[int]] = {("undefended", plan.pool): list(range(plan.pool))}
    for count in plan.released:
        drawn = np.random.default_rng([seed, 3]).choice(plan.pool, count, replace=False)
        found["cut_off", count] = list(range(count))
        found["random", count] = sorted(drawn.tolist())
    return found


def mark(texts: Sequence[str], exam: Sequence[Utterance]) -> dict[str, float]:
    """Return F1 of the slots, and the shares of exact frames and of right intents."""
    frames = [parse(text) for text in texts]
    said = [Counter((f.intent, *slot) for slot in f.slots) if f else Counter() for f in frames]
    meant = [Counter((u.frame.intent, *slot) for slot in u.frame.slots) for u in exam]
    right = sum((a & b).total() for a, b in zip(said, meant, strict=True))
    total = sum(a.total() + b.total() for a, b in zip(said, meant, strict=True))
    marks = task.mark(texts, exam)
    return {
        "slot_f1": 2 * right / total if total else 0.0,
        "exact": mean(marks.exact),
        "intent": mean(marks.intent),
    }


def figures(plan: Plan, marks: dict[Arm, list[dict[str, float]]]) -> dict[str, Any]:
    """Return scores, and the gains at each cut-off as shares of the undefended one."""
    whole = marks["undefended", plan.pool]
    points = [
        {"released": count}
        | {
            f"{key}{'_random' * (arm == 'random')}": share_of(marks[arm, count], whole, score)
            for arm in ("cut_off", "random")
            for score, key in SCORES.items()
        }
        for count in plan.released
    ]
    return {
        "quick": plan.quick, "pool": plan.pool, "seeds": plan.seeds, "asked": plan.exam, "points": points,
        "arms": [{"arm": arm, "answers": count, "marks": of} for (arm, count), of in marks.items()],
    }  # fmt: skip


def share_of(
    few: Sequence[dict[str, float]], whole: Sequence[dict[str, float]], score: str
) -> float | None:
    """Return the mean score of some students as a share of that of others, None where those score nothing."""
    full = mean(of[score] for of in whole)
    return mean(of[score] for of in few) / full if full else None


def table(found: dict[str, Any]) -> Table:
    """Return the figures for reading."""
    title = f"{found['asked']} test utterances, {found['seeds']} seeds{' (quick: rough)' * found['quick']}"
    shown = Table("student", title=title)
    for heading in ("answers", *(f"{score}, each seed" for score in SCORES)):
        shown.add_column(heading, justify="right")
    for row in found["arms"]:
        scores = (", ".join(f"{of[score]:.1%}" for of in row["marks"]) for score in SCORES)
        shown.add_row(row["arm"], str(row["answers"]), *scores)
    return shown


def _teacher(plan: Plan, progress: Progress) -> Path:
    """Fine-tune a teacher as `task.py --train 2000` does."""
    of = task.Plan(plan.data, plan.work, plan.base, "test", 2000, None, 0, False, (), ())
    corpus = task.write_corpus(of, draw(read_split(plan.data, "train"), 2000, 0))
    recipe = load_recipe(
        _ROOT / "recipes" / "snips-teacher.toml",
        [
            f"corpus.files={json.dumps([corpus.name])}",
            f"student.folder={json.dumps(plan.base)}",
            "train.rows=4",
        ],
    )
    limbeck.distill(
        recipe, out=plan.work / "teacher", base=plan.work, resume=True, progress=progress
    )
    return plan.work / "teacher" / "student"


def _student(
    plan: Plan, asked: Sequence[Utterance], said: Sequence[str], seed: int, progress: Progress
) -> Path:
    """Distil a student from these answers alone, or find the one that was."""
    chats = [
        [*task.chat_of(u), Message("assistant", text)]
        for u, text in zip(asked, said, strict=True)
        if text
    ]
    lines = "".join(json.dumps({"messages": [m.as_dict() for m in chat]}) + "\n" for chat in chats)
    name = f"answers-{sha256_json(lines)[:12]}.jsonl"
    write_text(plan.work / name, lines)
    epochs = min(_MOST_EPOCHS, _EPOCHS * plan.pool / len(asked))
    overrides = [
        f"corpus.files={json.dumps([name])}", f"teacher.model={json.dumps(plan.base)}", f"seed={seed}",
        f"train.epochs={epochs}", *_STUDENT, *plan.set_student,
    ]  # fmt: skip
    recipe = load_recipe(_ROOT / "recipes" / "snips.toml", overrides)
    decided = sha256_json({"recipe": recipe.as_json(), "corpus": sha256_file(plan.work / name)})
    folder = plan.work / f"student-{decided[:12]}"
    limbeck.distill(recipe, out=folder, base=plan.work, resume=True, progress=progress)
    return folder / "student"


def _answers(
    plan: Plan, name: str, folder: str, asked: Sequence[Utterance], progress: Progress
) -> list[str]:
    decided = sha256_json(
        {
            "weights": sha256_file(Path(folder) / "model.safetensors"),
            "asked": [u.text for u in asked],
        }
    )
    path = plan.work / "said" / f"{name}-{decided[:12]}.json"
    if path.is_file():
        return read_json(path)
    progress.begin(f"ask {name}", None, "")
    local = load(str(Path(folder).resolve()), dtype="bfloat16")
    texts = answer(local, [_prompt(local, u) for u in asked], most=64)
    write_json(path, texts)
    progress.end(f"{len(texts)} answers")
    return texts


def _prompt(local: LocalModel, utterance: Utterance) -> list[int]:
    record = Record(task.chat_of(utterance), "", True, utterance.text)
    return prompt_ids(record, local.tokenizer).tolist()


if __name__ == "__main__":
    main()
