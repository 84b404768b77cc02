"""From what a user names to the thing itself: a model, the run that made it, a task."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from limbeck import backends
from limbeck.artefact import sha256_file, sha256_json
from limbeck.backends.served import KEY_VARIABLE, PREFIX, ServedModel
from limbeck.errors import RunError, TaskError
from limbeck.validate.builtin import NAMES, builtin
from limbeck.validate.local import LocalRespondent
from limbeck.validate.respond import Respondent, ServedRespondent
from limbeck.validate.tasks import Task, TaskFile, read_settings, read_task
from limbeck.validate.timing import Writer

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Outside:
    """A task whose answers another tool scores."""

    settings: TaskFile
    base: Path
    """Folder of its TOML."""

    @property
    def name(self) -> str:
        """The task's name."""
        return self.settings.name

    @property
    def asks(self) -> bool:
        """Whether models are asked at all; logs hold what they said already."""
        return self.settings.scorer == "lm_eval"

    @property
    def sha256(self) -> str:
        """Hash over settings and files, so that a verdict names what it was reached on."""
        settings = self.settings
        named = [f for f in (settings.teacher_log, settings.student_log) if f is not None]
        files = [self.base / name for name in named]
        if settings.folder is not None:
            files += sorted(p for p in (self.base / settings.folder).rglob("*") if p.is_file())
        return sha256_json(
            {
                "settings": settings.model_dump(mode="json"),
                "files": [[f.name, sha256_file(f)] for f in files if f.is_file()],
            }
        )


AnyTask = Task | Outside


def open_model(spec: str, dtype: Dtype, base: Path) -> Respondent:
    """Return whoever answers to a model's name.

    Args:
        spec: A folder, `hf:org/name`, `packaged:name`, a run's folder, or `openai:NAME@URL`.
        dtype: Number format of a local model.
        base: What a relative folder is relative to.

    Raises:
        LimbeckError: There is no such model.
    """
    if spec.startswith(PREFIX):
        served = ServedModel(spec)
        return ServedRespondent(served.name, served.identity, served.complete)
    run = run_of(spec, base)
    folder = spec if run is None else _student_of(run)
    return LocalRespondent(backends.load(folder, dtype=dtype, base=base))


@contextmanager
def open_writer(spec: str, respondent: Respondent, *, max_new_tokens: int) -> Generator[Writer]:
    """Let a model that `open_model` returned write while somebody watches, for the length of a block.

    Raises:
        ScoringError: It can be asked but not watched.
    """
    if isinstance(respondent, LocalRespondent):
        from limbeck.validate.writers.local import LocalWriter

        yield LocalWriter(respondent.local, max_new_tokens=max_new_tokens)
        return
    from limbeck.validate.writers.served import ServedWriter

    name, _, url = spec.removeprefix(PREFIX).rpartition("@")
    key = os.environ.get(KEY_VARIABLE)
    with ServedWriter(name, url, max_new_tokens=max_new_tokens, key=key) as writer:
        yield writer


def _student_of(run: Path) -> str:
    if not (run / "student").is_dir():
        raise RunError(f"{run} has no student yet; go on with: limbeck distill RECIPE --resume")
    return str(run / "student")


def run_of(spec: str, base: Path) -> Path | None:
    """Return the folder of the run that made a student, given the run's folder or the student's; None for others."""
    folder = (base / Path(spec).expanduser()).resolve()
    places = [folder, folder.parent] if folder.name == "student" else [folder]
    return next((p for p in places if (p / "recipe.json").is_file()), None)


def start_of(run: Path) -> str | None:
    """Return the folder of a run's student before its first step, where it was kept."""
    start = run / "controls" / "undistilled"
    return str(start) if start.is_dir() else None


def open_task(name: str, base: Path, limit: int | None) -> AnyTask:
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
