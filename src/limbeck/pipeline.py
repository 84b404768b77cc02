"""Steps that each leave a stamp in a run's folder, so that what is done is not done again."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from limbeck.artefact import read_json, sha256_json, write_json
from limbeck.errors import RecipeError, RunError
from limbeck.progress import Progress
from limbeck.run import Run


class Context(Protocol):
    """What running steps asks of the work they belong to."""

    @property
    def run(self) -> Run: ...
    @property
    def resume(self) -> bool: ...
    @property
    def progress(self) -> Progress: ...


C = TypeVar("C", bound=Context)


@dataclass(frozen=True, slots=True)
class Step(Generic[C]):
    """One step: what decides its output, what it leaves, and the work."""

    name: str
    needs: tuple[str, ...]
    """Steps whose output goes in."""
    decided_by: Callable[[C], object]
    """JSON values, beside the output of `needs`, that decide the output."""
    outputs: tuple[str, ...]
    """Files and folders in the run's folder."""
    partial: tuple[str, ...]
    """Where unfinished work lies that `resume` goes on with."""
    work: Callable[[C], Mapping[str, Any]]
    """Makes the outputs and returns small facts for later steps; `seconds` among them replaces the measured time."""
    costly: bool = False
    """Whether damaged output is an error instead of being made again."""


def run_steps(context: C, steps: Sequence[Step[C]], only: str | None) -> None:
    """Run every step that is not done yet, or one alone.

    Raises:
        RecipeError: `only` names no step.
        RunError: A step that `only` needs is not done, or unfinished work is there and `resume` is False.
    """
    names = [step.name for step in steps]
    if only is not None and only not in names:
        raise RecipeError(f"--only {only} names no step; the steps are {', '.join(names)}")
    for step in steps:
        if only is None or step.name == only:
            _run(context, step)
        if step.name == only:
            return


def _run(context: C, step: Step[C]) -> None:
    run = context.run
    inputs = _inputs_sha256(context, step)
    if run.is_done(step.name, inputs):
        context.progress.skip(step.name, "already done")
        return
    _refuse_damage(run, step, inputs)
    _make_room(context, step, inputs)
    before, started = _seconds_before(run, step), time.perf_counter()
    try:
        facts = dict(step.work(context))
    except BaseException:
        spent = before + time.perf_counter() - started
        with suppress(
            OSError
        ):  # a full disk, say: what went wrong matters more than the time it took
            write_json(run.path(_begun(step)), {"inputs_sha256": inputs, "seconds": spent})
        raise
    seconds = float(facts.pop("seconds", before + time.perf_counter() - started))
    run.finish(step.name, inputs, step.outputs, seconds=seconds, facts=facts)
    run.clear(_begun(step))


def _inputs_sha256(context: C, step: Step[C]) -> str:
    """Hash everything that decides a step's output."""
    needed: dict[str, str] = {}
    for name in step.needs:
        stamp = context.run.stamp(name)
        changed = ["it was not run"] if stamp is None else context.run.damaged(stamp)
        if stamp is None or changed:
            raise RunError(
                f"step {step.name} needs the output of {name}, which is missing or changed in "
                f"{context.run.folder} ({', '.join(changed[:3])}); run the whole recipe, or --only {name} first"
            )
        needed[name] = stamp.sha256
    return sha256_json({"decided_by": step.decided_by(context), "needs": needed})


def _make_room(context: C, step: Step[C], inputs: str) -> None:
    """Keep unfinished work of these very inputs, remove what older inputs left, and mark the step as begun."""
    run, begun = context.run, context.run.path(_begun(step))
    there = [name for name in (*step.outputs, *step.partial) if run.path(name).exists()]
    if begun.is_file() and read_json(begun)["inputs_sha256"] == inputs:
        unfinished = [name for name in step.partial if run.path(name).exists()]
        if unfinished and not context.resume:
            raise RunError(
                f"{run.folder} holds an unfinished {step.name} ({', '.join(unfinished)}); "
                "go on with --resume, or choose another --out"
            )
        return
    if there and run.stamp(step.name) is None and not begun.is_file():
        raise RunError(
            f"{run.folder} holds {there[0]} but no steps/{step.name}.json that vouches for it; "
            "copy a run's folder whole, or remove what is left"
        )
    run.clear(*there, "manifest.json")
    write_json(begun, {"inputs_sha256": inputs})


def _refuse_damage(run: Run, step: Step[Any], inputs: str) -> None:
    stamp = run.stamp(step.name)
    if not step.costly or stamp is None or stamp.inputs_sha256 != inputs:
        return
    changed = run.damaged(stamp)
    if changed:
        raise RunError(
            f"{run.folder / changed[0]} is damaged or gone; put it back, or remove "
            f"{run.path(f'steps/{step.name}.json')} and {', '.join(step.outputs)} to run {step.name} again"
        )


def _seconds_before(run: Run, step: Step[Any]) -> float:
    """Return what earlier tries of a step took, as far as they could say; a killed one could not."""
    begun = run.path(_begun(step))
    return float(read_json(begun).get("seconds", 0.0)) if begun.is_file() else 0.0


def _begun(step: Step[Any]) -> str:
    return f"steps/{step.name}.begun.json"
