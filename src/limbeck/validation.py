"""The steps of a validation: promise, score, fidelity, contamination, judge, time, report."""

import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck.artefact import read_json, write_json, write_text
from limbeck.distill.evaluate import measure_fidelity
from limbeck.distill.report import environment
from limbeck.distill.store import StoreReader
from limbeck.distill.targets import Document
from limbeck.errors import LimbeckError, RunError, ScoringError, TaskError
from limbeck.model import LocalModel
from limbeck.opening import (
    AnyTask,
    Dtype,
    open_model,
    open_task,
    open_writer,
    run_of,
    start_of,
)
from limbeck.pipeline import Step, run_steps
from limbeck.progress import Progress
from limbeck.run import Run
from limbeck.scoring import (
    AGAIN,
    DAMAGED,
    START,
    STUDENT,
    TEACHER,
    Scoring,
    check_sequential,
    deal,
    played,
    score_all,
    score_controls,
    score_until_settled,
)
from limbeck.stats import anytime
from limbeck.stats.paired import Paired
from limbeck.stats.retention import retention
from limbeck.validate import controls
from limbeck.validate.builtin import DEFAULT, NAMES
from limbeck.validate.contamination import find_overlaps, summary
from limbeck.validate.controls import Control
from limbeck.validate.fidelity import fidelity_ledger
from limbeck.validate.judge.spec import JudgeSpec, check_precision, parse_judges
from limbeck.validate.ledger import NO_JUDGE, Answer, JudgedLedger, Question, VerifiedOutcome
from limbeck.validate.local import LocalRespondent
from limbeck.validate.margin import CONFIDENCE, Promise, check_margin, check_names
from limbeck.validate.modelcard import card_section, with_section
from limbeck.validate.outcome import Outcome, paired, verified
from limbeck.validate.report import Measured, build_report, render_html
from limbeck.validate.respond import Asked, Respondent, asked
from limbeck.validate.score import score_answer
from limbeck.validate.scores import ScoreBook
from limbeck.validate.tasks import Item, Task
from limbeck.validate.timing import measure_timing
from limbeck.validate.training_text import texts_of
from limbeck.validate.verdict import decide, detectable, each_task, triple

_DIVERGENCE_ITEMS = 150
"""Items whose prompts and answers the divergence is measured on, over all tasks."""
_SHOWN_CHARACTERS = 2000
"""Of an answer in the report."""
_TIMED_TOKENS = 64
"""Tokens of a timed answer at the most."""


@dataclass(frozen=True)
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
    """The student before its distillation; None takes that of the run that made the student."""
    training: tuple[str, ...] = ()
    """Files with text that the student was trained on, beside what its run knows."""
    limit: int | None = None
    """Items a task at the most."""
    sequential: bool = False
    """Stop scoring as soon as the evidence suffices."""
    dtype: Dtype = "float32"
    """Number format in which local models are scored."""
    seed: int = 0
    judges: tuple[str, ...] = ()
    """Judges as NAME=URL; docs/judges.md."""
    judge_precision: float | None = None
    """Half-width of the judged win rate at which asking stops; None asks about every item."""
    timed_blocks: int | None = 8
    """Blocks of interleaved timing, at least 6; None times nothing."""

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
    def tasks(self) -> list[AnyTask]:
        """Every task, read and checked."""
        found = [open_task(name, self.base, self.request.limit) for name in self.request.tasks]
        if not found:
            raise TaskError(
                f"a validation needs at least one task; built-in are {', '.join(NAMES)}"
            )
        check_names([task.name for task in found])
        return found

    @property
    def own(self) -> list[Task]:
        """The tasks that Limbeck scores itself."""
        return [t for t in self.tasks if isinstance(t, Task)]

    @property
    def asks(self) -> bool:
        """Whether models are asked at all, or only logs are read."""
        return any(isinstance(t, Task) or t.asks for t in self.tasks)

    @cached_property
    def judges(self) -> list[JudgeSpec]:
        """The judges, with their keys from the environment."""
        return parse_judges(self.request.judges, os.environ)

    @property
    def names(self) -> list[str]:
        """Names of all tasks."""
        return [t.name for t in self.tasks]

    @property
    def book(self) -> ScoreBook:
        """The scores."""
        return ScoreBook(self.run.path("scores"))

    @property
    def scoring(self) -> Scoring:
        """What is scored, and where the scores go."""
        return Scoring(self.tasks, self.book, self.request.limit, self.progress)

    @property
    def made_by(self) -> Path | None:
        """The run that made the student, where one of ours did."""
        return run_of(self.request.student, self.base)


def teacher_of(student: str, base: Path) -> str:
    """Return the teacher of the run that made a student.

    Raises:
        RunError: No run of ours did; then the teacher must be named.
    """
    run = run_of(student, base)
    if run is None:
        raise RunError(
            f"{student} is no run of limbeck distill, so its teacher is not known; name it with --teacher"
        )
    model = str(read_json(run / "recipe.json")["teacher"]["model"])
    if ":" in model or Path(model).is_absolute():
        return model
    raise RunError(
        f"the recipe of {run} names its teacher {model}, relative to a folder that is not known here; give --teacher"
    )


# promise


def _promise(flow: Validation) -> Mapping[str, Any]:
    request = flow.request
    check_margin(request.margin)
    check_precision(request.judge_precision)
    flow.progress.begin("promise", None, f"{len(flow.judges)} judges" if flow.judges else "")
    if request.sequential:
        check_sequential(flow.tasks)
    teacher, student = (
        (flow.teacher.identity, flow.student.identity)
        if flow.asks
        else (request.teacher, request.student)
    )
    if teacher == student:
        raise ScoringError(
            f"teacher {request.teacher} and student {request.student} are the same model ({teacher[:12]}); "
            "name two different ones (every run asks the teacher twice anyway)"
        )
    promise = Promise(
        margin=request.margin,
        teacher=teacher,
        student=student,
        tasks={task.name: task.sha256 for task in flow.tasks},
        seed=request.seed,
        sequential=request.sequential,
    )
    write_json(
        flow.run.path("promise.json"), {"promise": promise.as_dict(), "sha256": promise.sha256}
    )
    flow.progress.end(f"margin {request.margin:.0%}, hash {promise.sha256[:12]}")
    return {"sha256": promise.sha256}


# score


def _score(flow: Validation) -> Mapping[str, Any]:
    request, scoring = flow.request, flow.scoring
    schedule = deal(flow.own, seed=request.seed)
    facts = {"rounds": schedule.count, "played": schedule.count}
    if request.sequential:
        models = {TEACHER: flow.teacher, STUDENT: flow.student}
        facts["played"] = score_until_settled(scoring, models, schedule, request.margin)
    else:
        score_all(scoring, TEACHER, flow.teacher if flow.asks else None)
        score_all(scoring, STUDENT, flow.student if flow.asks else None)
    if flow.asks:
        start = request.undistilled or (flow.made_by and start_of(flow.made_by))
        score_controls(
            scoring,
            schedule,
            teacher=flow.teacher,
            student=flow.student,
            start=open_model(start, request.dtype, flow.base) if start else None,
            seed=request.seed,
        )
    return facts


# fidelity


def _fidelity(flow: Validation) -> Mapping[str, Any]:
    flow.progress.begin("fidelity", None, "")
    divergence, why_not = _divergence(flow)
    ledger = fidelity_ledger(
        flow.book.arm(TEACHER, flow.names), flow.book.arm(STUDENT, flow.names), divergence, why_not
    )
    write_json(flow.run.path("fidelity.json"), ledger)
    flow.progress.end(why_not or "")
    return {}


def _divergence(flow: Validation) -> tuple[Mapping[str, Any] | None, str | None]:
    """Measure KL and agreement over tokens of prompts with the teacher's answers, or say why not."""
    if not flow.own:
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
    for task in flow.own:
        items = {i.id: i for i in task.items}
        rows = flow.book.read(TEACHER, task.name)
        for row in rows[: max(1, _DIVERGENCE_ITEMS // len(flow.own))]:
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
    sources = _training_sources(flow)
    if sources and flow.own:
        value = {"checked": True, "reason": None, "sources": sources, **_overlaps(flow)}
    elif flow.own:
        why = "the training text is not known; validate the run that made the student, or give --training files"
        value = {"checked": False, "reason": why}
    else:
        value = {"checked": False, "reason": "only scores are known, not the questions"}
    write_json(flow.run.path("contamination.json"), value)
    flow.progress.end("checked" if value["checked"] else "not checked")
    return {}


def _overlaps(flow: Validation) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    items: dict[str, list[str]] = {}
    for task in flow.own:
        found = find_overlaps([i.prompt for i in task.items], _training_texts(flow))
        counts[task.name] = summary(found)
        items[task.name] = [i.id for i, o in zip(task.items, found, strict=True) if o.found]
    return {"tasks": counts, "items": items}


def _training_sources(flow: Validation) -> list[str]:
    store = _store(flow)
    known = [] if store is None else [f"what the run {store.parent.name} trained on"]
    return [*known, *(Path(name).name for name in flow.request.training)]


def _store(flow: Validation) -> Path | None:
    store = flow.made_by and flow.made_by / "store"
    return store if store and (store / "manifest.json").is_file() else None


def _training_texts(flow: Validation) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of what the student was trained on, as far as it is known."""
    store = _store(flow)
    if store is not None and isinstance(flow.student, LocalRespondent):
        decode = flow.student.local.tokenizer.decode
        for taught in StoreReader(store).documents():
            if not taught.document.heldout:
                yield taught.document.key[:12], decode(taught.document.tokens_T.tolist())
    for name in flow.request.training:
        yield from texts_of(flow.base / Path(name).expanduser())


# judge


@dataclass(frozen=True, slots=True)
class JudgingMaterial:
    """What goes to judges: written answers of both models, with what is verified of them."""

    questions: list[Question]
    teacher: list[Answer]
    student: list[Answer]
    verified: list[VerifiedOutcome]


def judging_material(flow: Validation) -> JudgingMaterial:
    """Return the items on which both models wrote an answer."""
    made = JudgingMaterial([], [], [], [])
    for task in flow.own:
        settings = task.settings
        if settings.scorer == "choice":
            continue
        items = {i.id: i for i in task.items}
        both = [flow.book.read(arm, task.name) for arm in (TEACHER, STUDENT)]
        for ours, theirs in zip(*both, strict=True):
            name, item = f"{task.name}/{ours.item}", items[ours.item]
            # Patterns and tests are no answers that could be shown.
            shown = settings.scorer in ("exact", "numeric", "json_schema")
            made.questions.append(
                Question(name, task.name, item.prompt, item.gold if shown else None)
            )
            made.teacher.append(Answer(name, ours.text or ""))
            made.student.append(Answer(name, theirs.text or ""))
        made.verified.extend(verified(task.name, *both))
    return made


def _judge(flow: Validation) -> Mapping[str, Any]:
    """Write what licensed judges say."""
    ledger = NO_JUDGE
    if flow.judges:
        from limbeck.validate.judge import judged_ledger

        made = judging_material(flow)
        ledger = judged_ledger(
            made.questions,
            made.teacher,
            made.student,
            made.verified,
            flow.judges,
            seed=flow.request.seed,
            lineage=_lineage(flow),
            score=_scorer(flow.own),
            cache=flow.run.path("judge-replies.jsonl"),
            precision=flow.request.judge_precision,
            progress=flow.progress,
        )
    write_json(flow.run.path("judged.json"), _judged_json(ledger))
    return {}


def _lineage(flow: Validation) -> list[str]:
    """Return every name that tells of what teacher and student are, or were made from."""
    names = [flow.request.teacher, flow.request.student]
    if flow.request.undistilled is not None:
        names.append(flow.request.undistilled)
    for respondent in (flow.teacher, flow.student):
        if isinstance(respondent, LocalRespondent) and respondent.local.source is not None:
            names.append(respondent.local.source)
    if flow.made_by is not None:
        recipe = read_json(flow.made_by / "recipe.json")
        models = (recipe["teacher"].get("model"), recipe["student"].get("model"))
        names += [str(model) for model in models if model is not None]
    return names


def _scorer(tasks: Sequence[Task]) -> Callable[[str, str], float]:
    """Return how judges' damaged answers are scored: as any answer to that item is."""
    known = {f"{task.name}/{item.id}": (task, item) for task in tasks for item in task.items}
    return lambda name, text: score_answer(*known[name], text)


def _judged_json(ledger: JudgedLedger) -> dict[str, Any]:
    judges = [
        asdict(j) | {"reasons": list(j.reasons), "figures": dict(j.figures)} for j in ledger.judges
    ]
    return {
        "claim": ledger.claim,
        "reason": ledger.reason,
        "win_rate": ledger.win_rate and list(ledger.win_rate),
        "effective_votes": ledger.effective_votes,
        "judges": judges,
    }


# time


def _time(flow: Validation) -> Mapping[str, Any]:
    """Write speed and cost on the same work."""
    try:
        figures = _timing(flow)
    except ScoringError as error:  # a model that cannot be watched still has its verdict
        figures = {"speed_ratio": None, "cost_ratio": None, "reason": str(error)}
    write_json(flow.run.path("timing.json"), figures)
    return {}


def _timing(flow: Validation) -> dict[str, Any]:
    blocks, tasks = flow.request.timed_blocks, _timed_tasks(flow.own)
    if blocks is None:
        raise ScoringError("no timing was asked for")
    if not tasks:
        raise ScoringError("only scores are known, not the questions")
    tokens = min(_TIMED_TOKENS, max(task.settings.max_new_tokens for task in tasks))
    both = [
        (flow.request.teacher, flow.teacher),
        (flow.request.student, flow.student),
    ]
    with (
        open_writer(*both[0], max_new_tokens=tokens) as teacher,
        open_writer(*both[1], max_new_tokens=tokens) as student,
    ):
        timing = measure_timing(
            _timed_prompts(tasks, 2 * blocks, flow.request.seed),
            teacher,
            student,
            blocks=blocks,
            outcomes=[
                o
                for task in tasks
                for o in verified(
                    task.name, *(flow.book.read(arm, task.name) for arm in (TEACHER, STUDENT))
                )
            ],
            progress=flow.progress,
        )
    return timing.as_dict() | {"reason": None, "tasks": [task.name for task in tasks]}


def _timed_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks with written answers, or where there is none, all: then prompts are gone on with."""
    return [t for t in tasks if t.settings.scorer != "choice"] or list(tasks)


def _timed_prompts(tasks: Sequence[Task], most: int, seed: int) -> list[Asked]:
    everything = [asked(task, item) for task in tasks for item in task.items]
    order = np.random.default_rng(seed).permutation(len(everything))
    return [everything[i] for i in order[:most]]


# report


def _report(flow: Validation) -> Mapping[str, Any]:
    flow.progress.begin("report", None, "")
    request, run = flow.request, flow.run
    scores = {name: flow.book.pair(name, TEACHER, STUDENT) for name in flow.names}
    tasks = list(scores.values())
    rounds = _rounds(flow)
    known = _controls(flow)
    found = retention(tasks, CONFIDENCE, played=rounds.get(""), seed=request.seed)
    report = build_report(
        Measured(
            created=datetime.now(UTC),
            teacher=request.teacher,
            student=request.student,
            promise=read_json(run.path("promise.json")),
            retention=found,
            verdict=decide(found, tasks, request.margin, known),
            tasks=each_task(
                scores, request.margin, confidence=CONFIDENCE, seed=request.seed, played=rounds
            ),
            about={t.name: t.settings for t in flow.tasks},
            detectable=detectable(tasks, CONFIDENCE),
            controls=known,
            fidelity=read_json(run.path("fidelity.json")),
            judged=read_json(run.path("judged.json")),
            timing=read_json(run.path("timing.json")),
            contamination=_with_clean(flow, read_json(run.path("contamination.json"))),
            stopped=_stopped(flow),
            samples=list(_samples(flow)),
            environment=_environment(flow),
        )
    )
    write_json(run.path("report.json"), report)
    write_text(run.path("report.html"), render_html(report))
    section = card_section(report)
    write_text(run.path("model-card.md"), section)
    _amend_card(flow, section)
    flow.progress.end(str(report["verdict"]))
    return {}


def _rounds(flow: Validation) -> dict[str, anytime.Rounds]:
    """Return the rounds of a sequential validation: of all tasks under the empty name, and of each by itself."""
    if not flow.request.sequential:
        return {}
    schedule, upto = deal(flow.own, seed=flow.request.seed), _score_facts(flow)["played"]
    each = {
        task.name: played(
            Scoring([task], flow.book, None, flow.progress),
            anytime.Schedule((round_I,), schedule.count),
            upto,
        )
        for task, round_I in zip(flow.own, schedule.round_KI, strict=True)
    }
    return {"": played(flow.scoring, schedule, upto), **each}


def _score_facts(flow: Validation) -> Mapping[str, Any]:
    stamp = flow.run.stamp("score")
    if stamp is None:
        raise RunError(f"{flow.run.folder} lacks the step score; run the whole validation")
    return stamp.facts


def _stopped(flow: Validation) -> dict[str, Any] | None:
    """Return how far a sequential validation went."""
    if not flow.request.sequential:
        return None
    scored = sum(map(len, flow.book.arm(STUDENT, flow.names).values()))
    there = sum(len(t.items) for t in flow.own)
    return {"items_scored": scored, "items_there": there, **_score_facts(flow)}


def _controls(flow: Validation) -> list[Control]:
    seed = flow.request.seed

    def pairs(left: str, right: str) -> list[Paired]:
        asked = flow.book.arm(right, flow.names)
        return [flow.book.pair(name, left, right) for name in asked]

    if not flow.asks:
        why = "the models themselves were not asked, only their logs are known"
        return [controls.not_run(name, why) for name in controls.EXPECTED]
    again = controls.teacher_again(pairs(TEACHER, AGAIN), confidence=CONFIDENCE, seed=seed)
    if flow.book.arm(START, flow.names):
        start = controls.undistilled_start(
            pairs(STUDENT, START), pairs(TEACHER, START), confidence=CONFIDENCE, seed=seed
        )
    else:
        why = (
            "the student's start is not known; validate the run that made it, or give --undistilled"
        )
        start = controls.not_run("undistilled", why)
    how = (
        "noise of one standard deviation on every weight matrix"
        if isinstance(flow.student, LocalRespondent)
        else "every item with the answer to another one"
    )
    broken = controls.damaged_student(
        pairs(TEACHER, DAMAGED), flow.request.margin, how=how, confidence=CONFIDENCE, seed=seed
    )
    return [again, start, broken]


def _with_clean(flow: Validation, contamination: dict[str, Any]) -> dict[str, Any]:
    """Add the retention on the items that were not found in the training text."""
    if not contamination["checked"]:
        return contamination
    clean: list[Paired] = []
    for name in flow.names:
        dirty = set(contamination["items"].get(name, ()))
        both = [flow.book.read(arm, name) for arm in (TEACHER, STUDENT)]
        teacher, student = ([o for o in side if o.item not in dirty] for side in both)
        if teacher:
            clean.append(paired(teacher, student))
    if not clean:
        return contamination | {
            "clean": {"items": 0, "retention": None, "reason": "no item is clean"}
        }
    found = retention(clean, CONFIDENCE, seed=flow.request.seed)
    figures = {"items": found.items, "retention": triple(found), "reason": found.reason}
    return contamination | {"clean": figures}


def _samples(flow: Validation) -> Iterator[dict[str, Any]]:
    """Yield, for each task, the first item that both get right, that the student lost, and that it gained."""
    for task in flow.own:
        items = {i.id: i for i in task.items}
        both = [flow.book.read(arm, task.name) for arm in (TEACHER, STUDENT)]
        seen = {(False, False)}
        for ours, theirs in zip(*both, strict=True):
            kind = (ours.score >= 0.5, theirs.score >= 0.5)
            if kind in seen:
                continue
            seen.add(kind)
            item = items[ours.item]
            yield {
                "task": task.name,
                "item": item.id,
                "prompt": item.prompt,
                "gold": item.gold,
                "teacher": {"answer": _shown(item, ours), "score": ours.score},
                "student": {"answer": _shown(item, theirs), "score": theirs.score},
            }


def _shown(item: Item, outcome: Outcome) -> str:
    if outcome.choice is not None:
        return item.choices[outcome.choice]
    return (outcome.text or "")[:_SHOWN_CHARACTERS]


def _environment(flow: Validation) -> dict[str, Any]:
    found = environment(device="cpu", threads=torch.get_num_threads())
    return found | {"dtype": flow.request.dtype}


def _amend_card(flow: Validation, section: str) -> None:
    """Put the section into the card of a student that a run of ours made."""
    card = flow.made_by and flow.made_by / "student" / "README.md"
    if card and card.is_file():
        write_text(card, with_section(card.read_text(encoding="utf-8"), section))


def _asked_for(*names: str) -> Callable[[Validation], object]:
    """Return a function that gives the named parts of the request as JSON values."""
    return lambda flow: {name: flow.request.as_json()[name] for name in names}


def _promised(flow: Validation) -> object:
    return {"request": flow.request.as_json(), "tasks": {t.name: t.sha256 for t in flow.tasks}}


STEPS: tuple[Step[Validation], ...] = (
    Step(
        name="promise",
        needs=(),
        decided_by=_promised,
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
        decided_by=_asked_for("seed", "judges", "judge_precision"),
        outputs=("judged.json",),
        partial=(),
        work=_judge,
    ),
    Step(
        name="time",
        needs=("score",),
        decided_by=_asked_for("dtype", "timed_blocks", "seed"),
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
            "steps": {
                s.step: {"inputs_sha256": s.inputs_sha256, "seconds": s.seconds} for s in done
            },
            "files": {name: sha for s in done for name, sha in s.outputs.items()},
        },
    )
