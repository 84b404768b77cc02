"""Score the models of a validation: teacher, student, and the controls; all at once, or until the evidence suffices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from limbeck.errors import TaskError
from limbeck.opening import AnyTask, Outside
from limbeck.progress import Named, Progress
from limbeck.stats import anytime
from limbeck.stats.paired import Ints
from limbeck.validate.asking import score_items, shuffled
from limbeck.validate.controls import damaged
from limbeck.validate.inspect_log import read_log
from limbeck.validate.lm_eval_task import score_lm_eval
from limbeck.validate.local import LocalRespondent
from limbeck.validate.margin import CONFIDENCE
from limbeck.validate.outcome import Outcome
from limbeck.validate.respond import Respondent
from limbeck.validate.scores import ScoreBook
from limbeck.validate.tasks import Item, Task

TEACHER, STUDENT = "teacher", "student"
AGAIN, DAMAGED, START = "teacher_again", "damaged", "undistilled"
CONTROL_ITEMS = 200
"""Items a task on which controls are run, at the most; enough to see a broken instrument."""
_FIRST_LOOK = 20
"""Rounds before a sequential validation looks for the first time; it looks again after every quarter more."""
_OTHER_BATCH_TOKENS = 1024
"""A teacher that is asked again is asked in smaller batches, so that it is no mere repetition."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """What is scored, and where the scores go."""

    tasks: Sequence[AnyTask]
    book: ScoreBook
    limit: int | None
    """Documents of another tool's task at the most."""
    progress: Progress

    @property
    def own(self) -> list[Task]:
        """The tasks that Limbeck scores itself."""
        return [t for t in self.tasks if isinstance(t, Task)]


def score_all(scoring: Scoring, arm: str, respondent: Respondent | None) -> None:
    """Score a model on every item, going on after what is there.

    Args:
        scoring: What and where.
        arm: `TEACHER` or `STUDENT`.
        respondent: The model; None where logs alone are read.
    """
    for task in scoring.tasks:
        _score(scoring, arm, task, task.items if isinstance(task, Task) else (), respondent)


def deal(tasks: Sequence[Task], *, seed: int) -> anytime.Schedule:
    """Deal items to rounds, by clusters; without tasks there are no rounds."""
    if not tasks:
        return anytime.Schedule((), 0)
    numbered: list[Ints] = []
    for task in tasks:
        _, cluster_I = np.unique([i.cluster for i in task.items], return_inverse=True)
        numbered.append(cluster_I.astype(np.int64))
    return anytime.schedule(numbered, seed=seed)


def check_sequential(tasks: Sequence[AnyTask]) -> None:
    """Refuse tasks whose items cannot be asked a few at a time.

    Raises:
        TaskError: Another tool scores one of them.
    """
    outside = [t.name for t in tasks if isinstance(t, Outside)]
    if outside:
        raise TaskError(
            f"a sequential validation takes tasks that Limbeck scores itself; {outside[0]} is scored by another tool"
        )


def score_until_settled(
    scoring: Scoring,
    models: Mapping[str, Respondent],
    schedule: anytime.Schedule,
    margin: float,
) -> int:
    """Score round after round, and return after how many the evidence sufficed, or all of them.

    Args:
        scoring: What and where.
        models: Teacher and student by arm.
        schedule: `deal` of the tasks.
        margin: Promised retention.
    """
    enough = np.log(2 / (1 - CONFIDENCE))
    upto = 0
    while upto < schedule.count:
        upto = min(schedule.count, max(_FIRST_LOOK, upto + upto // 4))
        for arm, respondent in models.items():
            for task, round_I in zip(scoring.own, schedule.round_KI, strict=True):
                wanted = [i for i, r in zip(task.items, round_I, strict=True) if r < upto]
                _score(scoring, arm, task, wanted, respondent)
        up_J, down_J = anytime.evidence(played(scoring, schedule, upto), margin)
        if max(up_J[-1], down_J[-1]) >= enough:
            return upto
    return upto


def played(scoring: Scoring, schedule: anytime.Schedule, upto: int) -> anytime.Rounds:
    """Return the rounds that were scored."""
    chosen = [np.flatnonzero(round_I < upto) for round_I in schedule.round_KI]
    scores = [scoring.book.pair(task.name, TEACHER, STUDENT) for task in scoring.own]
    return anytime.play(schedule, scores, upto=upto, chosen=chosen)


def score_controls(
    scoring: Scoring,
    schedule: anytime.Schedule,
    *,
    teacher: Respondent,
    student: Respondent,
    start: Respondent | None,
    seed: int,
) -> None:
    """Score the models whose retention is known, on the items of the first rounds.

    Args:
        scoring: What and where.
        schedule: `deal` of the tasks.
        teacher: Asked a second time, in other batches.
        student: Damaged: by noise on its weights, or by mixing up its answers where these are out of reach.
        start: The student before its distillation, where it is known.
        seed: Of the noise.
    """
    arms: dict[str, Respondent | None] = {AGAIN: _asked_otherwise(teacher), START: start}
    if isinstance(student, LocalRespondent):
        arms[DAMAGED] = LocalRespondent(damaged(student.local, seed=seed))
    for arm, respondent in arms.items():
        if respondent is not None:
            for task in scoring.tasks:
                wanted = _first(scoring, task, schedule)
                _score(scoring, arm, task, wanted, respondent)
    if DAMAGED not in arms:
        for task in scoring.own:
            if not scoring.book.read(DAMAGED, task.name):
                scoring.book.write(
                    DAMAGED, task.name, shuffled(task, scoring.book.read(STUDENT, task.name))
                )


def _asked_otherwise(teacher: Respondent) -> Respondent:
    if isinstance(teacher, LocalRespondent):
        return LocalRespondent(teacher.local, batch_tokens=_OTHER_BATCH_TOKENS)
    return teacher


def _first(scoring: Scoring, task: AnyTask, schedule: anytime.Schedule) -> list[Item]:
    """Return the items of the first rounds, among those that the student was scored on."""
    if not isinstance(task, Task):
        return []
    round_I = schedule.round_KI[[t.name for t in scoring.own].index(task.name)]
    scored = {o.item for o in scoring.book.read(STUDENT, task.name)}
    order = [task.items[i] for i in np.argsort(round_I, kind="stable")]
    return [item for item in order if item.id in scored][:CONTROL_ITEMS]


def _score(
    scoring: Scoring,
    arm: str,
    task: AnyTask,
    wanted: Sequence[Item],
    respondent: Respondent | None,
) -> None:
    """Score one model on one task, the items that are not there yet."""
    before = scoring.book.read(arm, task.name)
    progress = Named(scoring.progress, f"score {arm.replace('_', ' ')}: {task.name}")
    if isinstance(task, Outside):
        made = before or _outside(scoring, arm, task, respondent, progress)
    else:
        known = {o.item for o in before}
        missing = [i for i in wanted if i.id not in known]
        if not missing or respondent is None:
            return
        place = {item.id: n for n, item in enumerate(task.items)}
        made = [*before, *score_items(task, missing, respondent, progress)]
        made.sort(key=lambda o: place[o.item])
    if made:
        scoring.book.write(arm, task.name, made)


def _outside(
    scoring: Scoring,
    arm: str,
    task: Outside,
    respondent: Respondent | None,
    progress: Progress,
) -> list[Outcome]:
    settings = task.settings
    if not task.asks:
        log = {TEACHER: settings.teacher_log, STUDENT: settings.student_log}.get(arm)
        return [] if log is None else read_log(task.base / Path(log), settings)
    if respondent is None:
        return []
    progress.begin("score", None, "requests")
    made = score_lm_eval(
        settings, respondent, base=task.base, limit=scoring.limit, heard=progress.advance
    )
    progress.end(f"{len(made)} documents")
    return made
