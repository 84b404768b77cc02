"""Tasks of EleutherAI's lm-evaluation-harness, run by that library on our models.

The library reads the task (a local YAML beside its data, or one of its own), builds the prompts and scores the
answers; Limbeck answers its requests and takes the score of each document. It is an extra: `limbeck[lm-eval]`.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from limbeck.errors import MissingDependencyError, TaskError
from limbeck.validate.outcome import Outcome
from limbeck.validate.respond import Asked, Heard, Respondent
from limbeck.validate.tasks import UNIFORM, TaskFile

_KINDS = ("multiple_choice", "generate_until")
_LONGEST = 256
"""Tokens of an answer where the task states no limit, as in the harness."""


def score_lm_eval(
    settings: TaskFile,
    respondent: Respondent,
    *,
    base: Path,
    limit: int | None,
    heard: Heard,
) -> list[Outcome]:
    """Return the outcomes of a model on one task of the harness.

    Args:
        settings: `task` names it, `folder` holds local task files, `metric` the score that is read (acc by default).
        respondent: The model.
        base: Folder that `folder` starts from; the task's data files start from the working directory, as the
            harness has it.
        limit: Documents at the most, the first ones; None takes all.
        heard: Hears how many requests are done.

    Raises:
        MissingDependencyError: The library is not installed.
        TaskError: There is no such task, it asks for what Limbeck does not give, or it has no such score.
    """
    task = _task(settings, base)
    if task.OUTPUT_TYPE not in _KINDS:
        raise TaskError(
            f"lm-eval task {settings.task} is of type {task.OUTPUT_TYPE}; known here are {', '.join(_KINDS)}"
        )
    samples = _evaluate(task, settings, respondent, limit, heard)
    if not samples:
        raise TaskError(
            f"task {settings.name} is empty: lm-eval task {settings.task} has no documents"
        )
    return [_outcome(settings, task, sample) for sample in samples]


def _task(settings: TaskFile, base: Path) -> Any:
    try:
        tasks: Any = import_module("lm_eval.tasks")
    except ImportError:
        raise MissingDependencyError(
            "tasks of lm-eval need the package: pip install 'limbeck[lm-eval]'"
        ) from None
    local = settings.folder is not None
    folder = str((base / str(settings.folder)).resolve()) if local else None
    manager = tasks.TaskManager(include_path=folder, include_defaults=not local)
    if settings.task not in manager.all_tasks:
        where = f"{folder}" if local else "the harness"
        raise TaskError(f"lm-eval task {settings.task} is not in {where}")
    return tasks.get_task_dict([str(settings.task)], manager)[str(settings.task)]


def _evaluate(
    task: Any, settings: TaskFile, respondent: Respondent, limit: int | None, heard: Heard
) -> list[dict[str, Any]]:
    evaluator: Any = import_module("lm_eval.evaluator")
    results = evaluator.evaluate(
        lm=_model(respondent, heard),
        task_dict={str(settings.task): task},
        limit=limit,
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = results["samples"][str(settings.task)]
    return sorted(samples, key=lambda s: s["doc_id"])


def _outcome(settings: TaskFile, task: Any, sample: dict[str, Any]) -> Outcome:
    metric = settings.metric or "acc"
    if metric not in sample:
        scores = [name for name, value in sample.items() if isinstance(value, int | float)]
        raise TaskError(f"lm-eval task {settings.task} has no score {metric!r}; it has {scores}")
    document = sample["doc"]
    name = str(sample["doc_id"])
    chance = (
        1 / len(task.doc_to_choice(document)) if settings.chance == UNIFORM else settings.chance
    )
    cluster = name if settings.cluster is None else str(document[settings.cluster])
    written = sample["filtered_resps"] if task.OUTPUT_TYPE == "generate_until" else [None]
    return Outcome(
        item=name,
        cluster=cluster,
        chance=float(chance),
        score=float(sample[metric]),
        text=written[0] if isinstance(written[0], str) else None,
    )


def _model(respondent: Respondent, heard: Heard) -> Any:
    """Return our model as the harness's own class of models."""
    base: Any = import_module("lm_eval.api.model").LM

    def loglikelihood(_: object, requests: Sequence[Any], **__: Any) -> list[tuple[float, bool]]:
        return _weigh(respondent, [r.args for r in requests], heard)

    def generate_until(_: object, requests: Sequence[Any], **__: Any) -> list[str]:
        return _write(respondent, [r.args for r in requests], heard)

    def loglikelihood_rolling(_: object, __: Sequence[Any], **___: Any) -> list[float]:
        raise TaskError("rolling likelihoods of lm-eval tasks are not supported")

    methods = (loglikelihood, generate_until, loglikelihood_rolling)
    return type("Model", (base,), {m.__name__: m for m in methods})()


def _weigh(
    respondent: Respondent, pairs: Sequence[tuple[str, str]], heard: Heard
) -> list[tuple[float, bool]]:
    choices: dict[str, list[str]] = {}
    for context, text in pairs:
        if text not in choices.setdefault(context, []):
            choices[context].append(text)
    said = respondent.weigh(
        [_asked(c) for c in choices], [tuple(c) for c in choices.values()], heard=heard
    )
    logs = {
        (context, text): log
        for (context, texts), like in zip(choices.items(), said, strict=True)
        for text, log in zip(texts, like.log_C, strict=True)
    }
    # Whether a choice is the greedy one too is asked for by other kinds of task alone.
    return [(logs[pair], False) for pair in pairs]


def _write(
    respondent: Respondent, requests: Sequence[tuple[str, dict[str, Any]]], heard: Heard
) -> list[str]:
    answers: dict[int, str] = {}
    lengths = [int(options.get("max_gen_toks", _LONGEST)) for _, options in requests]
    for longest in sorted(set(lengths)):
        places = [i for i, length in enumerate(lengths) if length == longest]
        put = [_asked(requests[i][0]) for i in places]
        texts = respondent.write(put, max_new_tokens=longest, heard=heard)
        for i, text in zip(places, texts, strict=True):
            answers[i] = _cut(text, requests[i][1].get("until") or [])
    return [answers[i] for i in range(len(requests))]


def _cut(text: str, until: str | Sequence[str]) -> str:
    for stop in [until] if isinstance(until, str) else until:
        text = text.partition(stop)[0] if stop else text
    return text


def _asked(context: str) -> Asked:
    return Asked("lm-eval request", context, "text")
