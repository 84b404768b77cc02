"""The steps of a validation: promise, score, fidelity, contamination, judge, time, report."""

import gzip
import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from limbeck import backends
from limbeck.artefact import read_json, write_json, write_text
from limbeck.backends.served import PREFIX, ServedModel
from limbeck.distill.evaluate import measure_fidelity
from limbeck.distill.store import StoreReader
from limbeck.distill.targets import Document
from limbeck.errors import LimbeckError, RunError, ScoringError, TaskError
from limbeck.model import LocalModel
from limbeck.pipeline import Step, run_steps
from limbeck.progress import Named, Progress
from limbeck.run import Run
from limbeck.stats import anytime
from limbeck.stats.paired import Paired
from limbeck.stats.retention import Retention, retention
from limbeck.validate import controls
from limbeck.validate.builtin import DEFAULT, NAMES, builtin
from limbeck.validate.contamination import find_overlaps, summary
from limbeck.validate.controls import Control
from limbeck.validate.fidelity import fidelity_ledger
from limbeck.validate.inspect_log import read_log
from limbeck.validate.ledger import NO_JUDGE, Answer, JudgedLedger, Question, VerifiedOutcome
from limbeck.validate.lm_eval_task import score_lm_eval
from limbeck.validate.local import LocalRespondent
from limbeck.validate.margin import CONFIDENCE, Promise, check_margin, check_names
from limbeck.validate.modelcard import card_section, with_section
from limbeck.validate.outcome import Outcome, paired, verified
from limbeck.validate.report import Measured, build_report, environment, render_html
from limbeck.validate.respond import Respondent, ServedRespondent, asked
from limbeck.validate.score import score_answer
from limbeck.validate.score.choice import choose
from limbeck.validate.tasks import Item, Task, TaskFile, read_settings, read_task
from limbeck.validate.verdict import decide, detectable, each_task
from limbeck.artefact import sha256_file

Dtype = Literal["float32", "bfloat16"]
TEACHER, STUDENT = "teacher", "student"
AGAIN, DAMAGED, START = "teacher_again", "damaged", "undistilled"
_CONTROL_ITEMS = 200
"""Items a task on which controls are run, at the most; enough to see a broken instrument."""
_FIRST_LOOK = 20
"""Rounds before a sequential validation looks for the first time; it then looks again after every quarter more."""
_DIVERGENCE_ITEMS = 150
_CUT_ANSWER = 2000
"""Characters of an answer that the report shows."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for."""

    teacher: str
    """A folder, `hf:org/name`, `packaged:name`, a run's folder, or `openai:NAME@URL`."""
    student: str
    """The same."""
    tasks: tuple[str, ...] = DEFAULT
    """Names of built-in tasks, or paths of task files in TOML."""
    margin: float = 0.9
    """Retention that KEEPS must exceed."""
    undistilled: str | None = None
    """The student before its distillation; None takes that of the run where the student is a run's."""
    training: tuple[str, ...] = ()
    """Files with the text that the student was trained on, beside what its run knows."""
    limit: int | None = None
    """Items a task at the most."""
    sequential: bool = False
    """Stop scoring as soon as the evidence suffices."""
    dtype: Dtype = "float32"
    """Number format in which local models are scored."""
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Validation:
    """One validation under way; owns the loaded models."""

    request: Request
    run: Run
    base: Path
    """Folder that relative paths start from."""
    resume: bool
    progress: Progress

    @cached_property
    def teacher(self) -> Respondent:
        """The teacher, loaded when first asked."""
        return open_model(self.request.teacher, self.request.dtype, self.base)

    @cached_property
    def student(self) -> Respondent:
        """The student, loaded when first asked."""
        return open_model(self.request.student, self.request.dtype, self.base)

    @cached_property
    def tasks(self) -> list["Task | Outside"]:
        """Every task, read and checked."""
        found = [open_task(name, self.base, self.request.limit) for name in self.request.tasks]
        if not found:
            raise TaskError(f"a validation needs at least one task; built-in are {', '.join(NAMES)}")
        check_names([task.name for task in found])
        return found


@dataclass(frozen=True, slots=True)
class Outside:
    """A task whose answers another tool scores."""

    settings: TaskFile
    base: Path

    @property
    def name(self) -> str:
        """The task's name."""
        return self.settings.name

    @property
    def sha256(self) -> str:
        """Hash over what decides its items."""
        settings = self.settings
        files = [
            self.base / f for f in (settings.teacher_log, settings.student_log) if f is not None
        ]
        if settings.folder is not None:
            files += sorted(p for p in (self.base / settings.folder).rglob("*") if p.is_file())
        hashes = {f.name: sha256_file(f) for f in files if f.is_file()}
        from limbeck.artefact import sha256_json

        return sha256_json({"settings": settings.model_dump(mode="json"), "files": hashes})


def open_model(spec: str, dtype: Dtype, base: Path) -> Respondent:
    """Return whoever answers to a model's name.

    Raises:
        LimbeckError: There is no such model.
    """
    if spec.startswith(PREFIX):
        served = ServedModel(spec)
        return ServedRespondent(served.name, served.identity, served.complete)
    return LocalRespondent(backends.load(model_spec(spec, base), dtype=dtype, base=base))


def model_spec(spec: str, base: Path) -> str:
    """Return the folder of a run's student for a run's folder, and any other spec as it is.

    Raises:
        RunError: The run has no student yet.
    """
    run = run_folder(spec, base)
    if run is None:
        return spec
    if not (run / "student").is_dir():
        raise RunError(f"{run} has no student yet; go on with: limbeck distill RECIPE --resume")
    return str((run / "student").resolve())


def run_folder(spec: str, base: Path) -> Path | None:
    """Return the folder of the run that a model's name stands for: the run's own, or that of its student."""
    folder = (base / Path(spec).expanduser()).resolve()
    for candidate in (folder, folder.parent):
        if (candidate / "recipe.json").is_file() and (candidate / "steps").is_dir():
            return candidate
    return None


def open_task(name: str, base: Path, limit: int | None) -> "Task | Outside":
    """Return a built-in task, or one from a TOML file.

    Raises:
        TaskError: There is none, or it is malformed.
    """
    if name in NAMES:
        return builtin(name, limit=limit)
    path = base / Path(name).expanduser()
    if path.suffix != ".toml":
        raise TaskError(
            f"no task {name!r}: give the path of a task file in TOML, or one of {', '.join(NAMES)}"
        )
    settings = read_settings(path)
    if settings.scorer in ("lm_eval", "inspect"):
        return Outside(settings, path.parent)
    return read_task(path, limit=limit)


# promise


def _promise(flow: Validation) -> Mapping[str, Any]:
    request = flow.request
    check_margin(request.margin)
    flow.progress.begin("promise", None, "")
    needed = any(isinstance(t, Task) or t.settings.scorer == "lm_eval" for t in flow.tasks)
    names = {TEACHER: request.teacher, STUDENT: request.student}
    identities = (
        {TEACHER: flow.teacher.identity, STUDENT: flow.student.identity} if needed else names
    )
    if identities[TEACHER] == identities[STUDENT]:
        raise ScoringError(
            f"teacher {request.teacher} and student {request.student} are the same model "
            f"({identities[TEACHER][:12]}); name two different ones (every run compares the teacher with itself anyway)"
        )
    promise = Promise(
        margin=request.margin,
        teacher=identities[TEACHER],
        student=identities[STUDENT],
        tasks={task.name: task.sha256 for task in flow.tasks},
        seed=request.seed,
        sequential=request.sequential,
    )
    write_json(
        flow.run.path("promise.json"), {"promise": promise.as_dict(), "sha256": promise.sha256}
    )
    flow.progress.end(f"margin {request.margin:.0%}, {promise.sha256[:12]}")
    return {"sha256": promise.sha256}


# score


def _score(flow: Validation) -> Mapping[str, Any]:
    schedule = _schedule(flow)
    facts = {"rounds": schedule.count, "played": schedule.count}
    if flow.request.sequential:
        facts["played"] = _score_until_settled(flow, schedule)
    else:
        for arm in (TEACHER, STUDENT):
            _score_arm(flow, arm, _everything(flow))
    _score_controls(flow, schedule)
    return facts


def _everything(flow: Validation) -> dict[str, list[Item] | None]:
    return {t.name: list(t.items) if isinstance(t, Task) else None for t in flow.tasks}


def _schedule(flow: Validation) -> anytime.Schedule:
    """Deal items to rounds; what another tool scores has no items to deal and is always whole."""
    own = [t for t in flow.tasks if isinstance(t, Task)]
    if flow.request.sequential and len(own) < len(flow.tasks):
        raise TaskError("a sequential validation takes tasks that Limbeck scores itself, no lm_eval or inspect ones")
    numbered = [np.unique([i.cluster for i in t.items], return_inverse=True)[1] for t in own]
    if not numbered:
        return anytime.Schedule((), 0)
    return anytime.schedule([n.astype(np.int64) for n in numbered], seed=flow.request.seed)


def _score_until_settled(flow: Validation, schedule: anytime.Schedule) -> int:
    """Score round after round; return how many it took until the evidence sufficed, or all."""
    limit = np.log(2 / (1 - CONFIDENCE))
    upto = 0
    while upto < schedule.count:
        upto = min(schedule.count, max(_FIRST_LOOK, upto + upto // 4))
        wanted = _up_to(flow, schedule, upto)
        for arm in (TEACHER, STUDENT):
            _score_arm(flow, arm, cast("dict[str, list[Item] | None]", wanted))
        played = _played(flow, schedule, upto)
        up_J, down_J = anytime.evidence(played, flow.request.margin)
        if max(up_J[-1], down_J[-1]) >= limit:
            return upto
    return upto


def _up_to(flow: Validation, schedule: anytime.Schedule, upto: int) -> dict[str, list[Item]]:
    return {
        task.name: [i for i, r in zip(task.items, round_I, strict=True) if r < upto]
        for task, round_I in zip(
            (t for t in flow.tasks if isinstance(t, Task)), schedule.round_KI, strict=True
        )
    }


def _played(flow: Validation, schedule: anytime.Schedule, upto: int) -> anytime.Rounds:
    chosen = [np.flatnonzero(round_I < upto) for round_I in schedule.round_KI]
    scores = [_pair(flow, task.name, STUDENT) for task in flow.tasks]
    return anytime.play(schedule, scores, upto=upto, chosen=chosen)


def _score_arm(
    flow: Validation,
    arm: str,
    wanted: Mapping[str, list[Item] | None],
    respondent: Respondent | None = None,
) -> None:
    """Score a model on every task, going on after what lies there."""
    for task in flow.tasks:
        path = _scores_path(flow, arm, task.name)
        before = _read_outcomes(path)
        known = {o.item for o in before}
        progress = Named(flow.progress, f"score {arm.replace('_', ' ')}: {task.name}")
        if isinstance(task, Task):
            missing = [i for i in wanted.get(task.name) or () if i.id not in known]
            if missing:
                asked_of = respondent or _respondent(flow, arm)
                made = _outcomes(task, missing, asked_of, progress)
                _write_outcomes(path, task, [*before, *made])
        elif not before and task.name in wanted:
            made = _outside(flow, task, arm, respondent, progress)
            if made:
                _write_lines(path, made)


def _respondent(flow: Validation, arm: str) -> Respondent:
    return flow.student if arm == STUDENT else flow.teacher


def _outcomes(
    task: Task, items: Sequence[Item], respondent: Respondent, progress: Progress
) -> list[Outcome]:
    """Put items to a model and score what it says."""
    progress.begin("score", len(items), "items")
    put = [asked(task, item) for item in items]
    if task.settings.scorer == "choice":
        said = respondent.weigh(put, [i.choices for i in items], heard=progress.advance)
        chosen = [choose(i, s, task.settings.normalise) for i, s in zip(items, said, strict=True)]
        made = [
            Outcome(i.id, i.cluster, i.chance, c.score, None, c.choice, c.confidence)
            for i, c in zip(items, chosen, strict=True)
        ]
    else:
        longest = task.settings.max_new_tokens
        texts = respondent.write(put, max_new_tokens=longest, heard=progress.advance)
        made = [
            Outcome(i.id, i.cluster, i.chance, score_answer(task, i, text), text)
            for i, text in zip(items, texts, strict=True)
        ]
    progress.end(f"mean score {np.mean([o.score for o in made]):.3f}")
    return made


def _outside(
    flow: Validation,
    task: Outside,
    arm: str,
    respondent: Respondent | None,
    progress: Progress,
) -> list[Outcome]:
    settings = task.settings
    if settings.scorer == "inspect":
        log = {TEACHER: settings.teacher_log, STUDENT: settings.student_log}.get(arm)
        return [] if log is None else read_log(task.base / log, settings)
    progress.begin("score", None, "requests")
    made = score_lm_eval(
        settings,
        respondent or _respondent(flow, arm),
        base=task.base,
        limit=flow.request.limit,
        heard=progress.advance,
    )
    progress.end(f"{len(made)} documents")
    return made


def _score_controls(flow: Validation, schedule: anytime.Schedule) -> None:
    """Score the models whose retention is known, on the first rounds."""
    everything = {
        t.name: _first(flow, t, schedule) if isinstance(t, Task) else None
        for t in flow.tasks
        if isinstance(t, Task) or t.settings.scorer == "lm_eval"
    }
    if not everything:
        return
    _score_arm(flow, AGAIN, everything, _asked_otherwise(flow.teacher))
    student = flow.student
    if isinstance(student, LocalRespondent):
        broken = controls.damaged(student.local, seed=flow.request.seed)
        _score_arm(flow, DAMAGED, everything, LocalRespondent(broken))
    else:
        _score_shuffled(flow)
    start = _start_spec(flow)
    if start is not None:
        _score_arm(flow, START, everything, open_model(start, flow.request.dtype, flow.base))


def _asked_otherwise(teacher: Respondent) -> Respondent:
    """Return the teacher with other batches, so that asking it again is no mere repetition."""
    return LocalRespondent(teacher.local, batch_tokens=1024) if isinstance(teacher, LocalRespondent) else teacher


def _first(flow: Validation, task: Task, schedule: anytime.Schedule) -> list[Item]:
    """Return the items of the first rounds, among those that the student was scored on."""
    own = [t.name for t in flow.tasks if isinstance(t, Task)]
    round_I = schedule.round_KI[own.index(task.name)]
    scored = {o.item for o in _read_outcomes(_scores_path(flow, STUDENT, task.name))}
    order = np.argsort(round_I, kind="stable")
    return [task.items[i] for i in order if task.items[i].id in scored][:_CONTROL_ITEMS]


def _score_shuffled(flow: Validation) -> None:
    """Damage a student whose weights are out of reach: every item gets the answer to another one."""
    for task in flow.tasks:
        path = _scores_path(flow, DAMAGED, task.name)
        if not isinstance(task, Task) or path.is_file():
            continue
        items = {i.id: i for i in task.items}
        rows = _read_outcomes(_scores_path(flow, STUDENT, task.name))
        moved = [*rows[1:], *rows[:1]]
        made = [
            replace(row, text=other.text, score=score_answer(task, items[row.item], other.text or ""))
            for row, other in zip(rows, moved, strict=True)
        ]
        _write_lines(path, made)


def _start_spec(flow: Validation) -> str | None:
    if flow.request.undistilled is not None:
        return flow.request.undistilled
    run = run_folder(flow.request.student, flow.base)
    start = None if run is None else run / "controls" / "undistilled"
    return str(start) if start is not None and start.is_dir() else None


def _scores_path(flow: Validation, arm: str, task: str) -> Path:
    return flow.run.path(f"scores/{arm}/{task}.jsonl")


def _read_outcomes(path: Path) -> list[Outcome]:
    if not path.is_file():
        return []
    return [Outcome(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _write_outcomes(path: Path, task: Task, made: Sequence[Outcome]) -> None:
    place = {item.id: i for i, item in enumerate(task.items)}
    _write_lines(path, sorted(made, key=lambda o: place[o.item]))


def _write_lines(path: Path, made: Sequence[Outcome]) -> None:
    lines = (json.dumps(o.as_dict(), ensure_ascii=False) + "\n" for o in made)
    write_text(path, "".join(lines))


def _all_outcomes(flow: Validation, arm: str) -> dict[str, list[Outcome]]:
    found = {t.name: _read_outcomes(_scores_path(flow, arm, t.name)) for t in flow.tasks}
    return {name: rows for name, rows in found.items() if rows}


def _pair(flow: Validation, task: str, arm: str, against: str = TEACHER) -> Paired:
    """Return two arms' scores on the items that both were scored on."""
    left = _read_outcomes(_scores_path(flow, against, task))
    right = _read_outcomes(_scores_path(flow, arm, task))
    if arm in (AGAIN, DAMAGED, START):
        there = {o.item for o in right}
        left = [o for o in left if o.item in there]
    return paired(left, right)


# fidelity


def _fidelity(flow: Validation) -> Mapping[str, Any]:
    flow.progress.begin("fidelity", None, "")
    divergence, why_not = _divergence(flow)
    ledger = fidelity_ledger(
        _all_outcomes(flow, TEACHER), _all_outcomes(flow, STUDENT), divergence, why_not
    )
    write_json(flow.run.path("fidelity.json"), ledger)
    flow.progress.end(why_not or "")
    return {}


def _divergence(flow: Validation) -> tuple[Mapping[str, Any] | None, str | None]:
    """Measure KL and agreement over tokens of prompts with the teacher's answers, or say why not."""
    if not any(isinstance(t, Task) for t in flow.tasks):
        return None, "only scores are known, no text"
    teacher, student = flow.teacher, flow.student
    if not (isinstance(teacher, LocalRespondent) and isinstance(student, LocalRespondent)):
        return None, "the distributions of a served model are not known"
    if teacher.local.tokenizer_sha256 != student.local.tokenizer_sha256:
        return None, "teacher and student have different tokenizers"
    documents = list(_answered(flow, teacher.local))
    vocabulary = teacher.local.model.get_output_embeddings().weight.shape[0]
    try:
        measured = measure_fidelity(
            teacher.local.model,
            {STUDENT: student.local.model},
            documents,
            np.zeros(vocabulary, dtype=np.int64),
            precision="no",
            batch_tokens=4096,
            progress=flow.progress,
        ).as_dict()
    except LimbeckError as error:
        return None, str(error)
    student_figures: Any = measured[STUDENT]
    kept = ("kl_mean", "kl_interval", "kl_tails", "top1_agreement", "top1_interval")
    sizes = {name: measured[name] for name in ("documents", "positions", "confidence")}
    return {**sizes, **{name: student_figures[name] for name in kept}}, None


def _answered(flow: Validation, teacher: LocalModel) -> Iterator[Document]:
    """Yield prompts with what the teacher answered; every token counts but the last."""
    own = [t for t in flow.tasks if isinstance(t, Task)]
    for task in own:
        items = {i.id: i for i in task.items}
        rows = _read_outcomes(_scores_path(flow, TEACHER, task.name))
        for row in rows[: _DIVERGENCE_ITEMS // len(own) or 1]:
            item = items[row.item]
            answer = item.choices[row.choice] if row.choice is not None else f"\n{row.text or ''}"
            ids = teacher.tokenizer(item.prompt + answer, verbose=False)["input_ids"]
            tokens_T = np.asarray(ids, dtype=np.int32)
            loss_T = np.ones(len(tokens_T), dtype=np.bool_)
            loss_T[-1:] = False
            yield Document(tokens_T, loss_T, True, f"{task.name}/{row.item}")


# contamination


def _contamination(flow: Validation) -> Mapping[str, Any]:
    flow.progress.begin("contamination", None, "")
    own = [t for t in flow.tasks if isinstance(t, Task)]
    texts = list(_training_sources(flow))
    if not texts or not own:
        why = (
            "the training text is not known: give the run that made the student, or --training files"
            if own
            else "the tasks' questions are not known, only their scores"
        )
        write_json(flow.run.path("contamination.json"), {"checked": False, "reason": why})
        flow.progress.end(why)
        return {}
    found = {
        task.name: find_overlaps([i.prompt for i in task.items], _training_texts(flow))
        for task in own
    }
    marked = {
        task.name: [i.id for i, o in zip(task.items, found[task.name], strict=True) if o.found]
        for task in own
    }
    value: dict[str, Any] = {
        "checked": True,
        "reason": None,
        "sources": texts,
        "tasks": {name: summary(overlaps) for name, overlaps in found.items()},
        "items": marked,
    }
    write_json(flow.run.path("contamination.json"), value)
    flow.progress.end(f"{sum(map(len, marked.values()))} items found in the training text")
    return {}


def _training_sources(flow: Validation) -> Iterator[str]:
    run = run_folder(flow.request.student, flow.base)
    if run is not None and (run / "store" / "manifest.json").is_file():
        yield f"the store of {run.name}"
    yield from (Path(name).name for name in flow.request.training)


def _training_texts(flow: Validation) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of what the student was trained on, as far as it is known."""
    run = run_folder(flow.request.student, flow.base)
    if run is not None and (run / "store" / "manifest.json").is_file():
        tokenizer = backends.load(
            str((run / "student").resolve()), dtype=flow.request.dtype
        ).tokenizer if not isinstance(flow.student, LocalRespondent) else flow.student.local.tokenizer
        for taught in StoreReader(run / "store").documents():
            if not taught.document.heldout:
                yield taught.document.key[:12], tokenizer.decode(taught.document.tokens_T.tolist())
    for name in flow.request.training:
        yield from _texts_of(flow.base / Path(name).expanduser())


def _texts_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the documents of a file: the strings of each JSON line, or the text of each paragraph."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TaskError(f"training text {path} cannot be read: {error}") from None
    if ".jsonl" in path.name:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield f"{path.name} line {number}", "\n\n".join(_strings(_json_line(path, number, line)))
    else:
        yield path.name, text


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise TaskError(f"training text {path.name} line {number} is not JSON: {error}") from None


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in cast("dict[str, object]", value).values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _strings(inner)


# judge


@dataclass(frozen=True, slots=True)
class JudgingMaterial:
    """What goes to judges: written answers of both models with what is verified of them."""

    questions: list[Question]
    teacher: list[Answer]
    student: list[Answer]
    verified: list[VerifiedOutcome]


def judging_material(flow: Validation) -> JudgingMaterial:
    """Return the items on which both models wrote an answer."""
    made = JudgingMaterial([], [], [], [])
    for task in flow.tasks:
        if not isinstance(task, Task) or task.settings.scorer == "choice":
            continue
        items = {i.id: i for i in task.items}
        both = [_read_outcomes(_scores_path(flow, arm, task.name)) for arm in (TEACHER, STUDENT)]
        for ours, theirs in zip(*both, strict=True):
            name = f"{task.name}/{ours.item}"
            item = items[ours.item]
            gold = item.gold if task.settings.scorer in ("exact", "numeric", "json_schema") else None
            made.questions.append(Question(name, task.name, item.prompt, gold))
            made.teacher.append(Answer(name, ours.text or ""))
            made.student.append(Answer(name, theirs.text or ""))
        made.verified.extend(verified(task.name, *both))
    return made


def _judge(flow: Validation) -> Mapping[str, Any]:
    """Write what licensed judges say; the one place where judges are wired in."""
    ledger: JudgedLedger = NO_JUDGE
    write_json(flow.run.path("judged.json"), _judged_json(ledger))
    return {}


def _judged_json(ledger: JudgedLedger) -> dict[str, Any]:
    return {
        "claim": ledger.claim,
        "reason": ledger.reason,
        "win_rate": ledger.win_rate and list(ledger.win_rate),
        "effective_votes": ledger.effective_votes,
        "judges": [
            {
                "name": judge.name,
                "licensed": judge.licensed,
                "reasons": list(judge.reasons),
                "figures": dict(judge.figures),
            }
            for judge in ledger.judges
        ],
    }


# time


def _time(flow: Validation) -> Mapping[str, Any]:
    """Write speed and cost on the same work; the one place where timing is wired in."""
    write_json(
        flow.run.path("timing.json"),
        {"speed_ratio": None, "cost_ratio": None, "reason": "not timed"},
    )
    return {}


# report


def _report(flow: Validation) -> Mapping[str, Any]:
    flow.progress.begin("report", None, "")
    request, run = flow.request, flow.run
    scores = {t.name: _pair(flow, t.name, STUDENT) for t in flow.tasks}
    played = _rounds_played(flow)
    found = retention(list(scores.values()), CONFIDENCE, played=played, seed=request.seed)
    known = _controls(flow)
    tasks = list(scores.values())
    contamination = _with_clean(flow, read_json(run.path("contamination.json")), scores)
    report = build_report(
        Measured(
            created=datetime.now(UTC),
            teacher=request.teacher,
            student=request.student,
            promise=read_json(run.path("promise.json")),
            retention=found,
            verdict=decide(found, tasks, request.margin, known),
            tasks=each_task(scores, request.margin, confidence=CONFIDENCE, seed=request.seed),
            about={t.name: t.settings for t in flow.tasks},
            detectable=detectable(tasks, CONFIDENCE),
            controls=known,
            fidelity=read_json(run.path("fidelity.json")),
            judged=read_json(run.path("judged.json")),
            timing=read_json(run.path("timing.json")),
            contamination=contamination,
            stopped=_stopped(flow),
            samples=_samples(flow),
            environment=environment(dtype=request.dtype),
        )
    )
    write_json(run.path("report.json"), report)
    write_text(run.path("report.html"), render_html(report))
    section = card_section(report)
    write_text(run.path("model-card.md"), section)
    _amend_card(flow, section)
    flow.progress.end(report["sentence"])
    return {}


def _rounds_played(flow: Validation) -> anytime.Rounds | None:
    if not flow.request.sequential:
        return None
    stamp = flow.run.stamp("score")
    if stamp is None:
        raise RunError(f"{flow.run.folder} lacks the step score; run the whole validation")
    return _played(flow, _schedule(flow), int(stamp.facts["played"]))


def _stopped(flow: Validation) -> dict[str, Any] | None:
    """Return how far a sequential validation went."""
    stamp = flow.run.stamp("score")
    if not flow.request.sequential or stamp is None:
        return None
    everything = sum(len(t.items) for t in flow.tasks if isinstance(t, Task))
    scored = sum(map(len, _all_outcomes(flow, STUDENT).values()))
    return {"items_scored": scored, "items_there": everything, **stamp.facts}


def _controls(flow: Validation) -> list[Control]:
    options = {"confidence": CONFIDENCE, "seed": flow.request.seed}
    made: list[Control] = []
    again = list(_all_outcomes(flow, AGAIN))
    if not again:
        why = "the models themselves were not asked: only their logs are known"
        return [
            controls.not_run("teacher again", "the interval holds 100%", why),
            controls.not_run("undistilled", "it is not better than the student", why),
            controls.not_run("damaged", "it loses", why),
        ]
    made.append(controls.teacher_again([_pair(flow, t, AGAIN) for t in again], **options))
    start = list(_all_outcomes(flow, START))
    if start:
        made.append(
            controls.undistilled_start(
                [_common(flow, t, START, STUDENT) for t in start],
                [_pair(flow, t, START) for t in start],
                **options,
            )
        )
    else:
        why = "the student's start is not known: validate the run's folder, or give --undistilled"
        made.append(controls.not_run("undistilled", "it is not better than the student", why))
    broken = list(_all_outcomes(flow, DAMAGED))
    how = (
        "noise of one standard deviation on every weight matrix"
        if isinstance(flow.student, LocalRespondent)
        else "every item with the answer to another one"
    )
    made.append(
        controls.damaged_student(
            [_pair(flow, t, DAMAGED) for t in broken], flow.request.margin, how=how, **options
        )
    )
    return made


def _common(flow: Validation, task: str, arm: str, against: str) -> Paired:
    return _pair(flow, task, arm, against)


def _with_clean(
    flow: Validation, contamination: dict[str, Any], scores: Mapping[str, Paired]
) -> dict[str, Any]:
    """Add the retention on the items that were not found in the training text."""
    if not contamination["checked"]:
        return contamination
    clean: list[Paired] = []
    for name in scores:
        dirty = set(contamination["items"].get(name, ()))
        both = [_read_outcomes(_scores_path(flow, arm, name)) for arm in (TEACHER, STUDENT)]
        rows = [[o for o in side if o.item not in dirty] for side in both]
        if rows[0]:
            clean.append(paired(rows[0], rows[1]))
    found = retention(clean, CONFIDENCE, seed=flow.request.seed) if clean else None
    return contamination | {"clean": _clean_figures(found)}


def _clean_figures(found: Retention | None) -> dict[str, Any]:
    if found is None:
        return {"items": 0, "retention": None, "reason": "no item is clean"}
    known = None if found.low is None else [found.point, found.low, found.high]
    return {"items": found.items, "retention": known, "reason": found.reason}


def _samples(flow: Validation) -> list[dict[str, Any]]:
    """Return, for each task, an item that both get right, one that the student lost and one that it gained."""
    made: list[dict[str, Any]] = []
    for task in flow.tasks:
        if not isinstance(task, Task):
            continue
        items = {i.id: i for i in task.items}
        both = [_read_outcomes(_scores_path(flow, arm, task.name)) for arm in (TEACHER, STUDENT)]
        seen: set[tuple[bool, bool]] = set()
        for ours, theirs in zip(*both, strict=True):
            kind = (ours.score >= 0.5, theirs.score >= 0.5)
            if kind in seen or kind == (False, False):
                continue
            seen.add(kind)
            item = items[ours.item]
            made.append(
                {
                    "task": task.name,
                    "item": item.id,
                    "prompt": item.prompt,
                    "gold": item.gold,
                    "teacher": {"answer": _shown(item, ours), "score": ours.score},
                    "student": {"answer": _shown(item, theirs), "score": theirs.score},
                }
            )
    return made


def _shown(item: Item, outcome: Outcome) -> str:
    if outcome.choice is not None:
        return item.choices[outcome.choice]
    return (outcome.text or "")[:_CUT_ANSWER]


def _amend_card(flow: Validation, section: str) -> None:
    """Put the section into the card of a student that a run of ours made."""
    run = run_folder(flow.request.student, flow.base)
    card = None if run is None else run / "student" / "README.md"
    if card is not None and card.is_file():
        write_text(card, with_section(card.read_text(encoding="utf-8"), section))


def _asked_for(*names: str) -> Any:
    def values(flow: Validation) -> object:
        request = flow.request.as_json()
        return {name: request[name] for name in names}

    return values


STEPS: tuple[Step[Validation], ...] = (
    Step(
        name="promise",
        needs=(),
        decided_by=lambda flow: {
            "request": flow.request.as_json(),
            "tasks": {t.name: t.sha256 for t in flow.tasks},
        },
        outputs=("promise.json",),
        partial=(),
        work=_promise,
    ),
    Step(
        name="score",
        needs=("promise",),
        decided_by=_asked_for("dtype", "undistilled", "limit"),
        outputs=("scores",),
        partial=("scores",),
        work=_score,
    ),
    Step(
        name="fidelity",
        needs=("score",),
        decided_by=_asked_for("dtype"),
        outputs=("fidelity.json",),
        partial=(),
        work=_fidelity,
    ),
    Step(
        name="contamination",
        needs=("promise",),
        decided_by=_asked_for("training", "student"),
        outputs=("contamination.json",),
        partial=(),
        work=_contamination,
    ),
    Step(
        name="judge",
        needs=("score",),
        decided_by=_asked_for("seed"),
        outputs=("judged.json",),
        partial=(),
        work=_judge,
    ),
    Step(
        name="time",
        needs=("promise",),
        decided_by=_asked_for("dtype"),
        outputs=("timing.json",),
        partial=(),
        work=_time,
    ),
    Step(
        name="report",
        needs=("promise", "score", "fidelity", "contamination", "judge", "time"),
        decided_by=_asked_for("teacher", "student"),
        outputs=("report.json", "report.html", "model-card.md"),
        partial=(),
        work=_report,
    ),
)
BINDING = ("score", "fidelity", "contamination", "judge", "time", "report")
"""Steps after whose beginning the folder belongs to its promise."""


def validate_models(flow: Validation) -> None:
    """Run the steps, and write the manifest last.

    Raises:
        LimbeckError: Anything the user can mend.
    """
    run_steps(flow, STEPS, None)
    done = [s for s in (flow.run.stamp(step.name) for step in STEPS) if s is not None]
    write_json(
        flow.run.path("manifest.json"),
        {
            "limbeck": importlib.metadata.version("limbeck"),
            "steps": {s.step: {"inputs_sha256": s.inputs_sha256, "seconds": s.seconds} for s in done},
            "files": {name: sha for s in done for name, sha in s.outputs.items()},
        },
    )
