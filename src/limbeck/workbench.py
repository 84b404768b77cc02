"""The Python API: ties models to flows. Heavy parts are imported when a flow starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.artefact import read_json
from limbeck.errors import RunError
from limbeck.progress import Progress, Silent
from limbeck.run import Run, open_run, read_run
from limbeck.verifier import NamedVerifier, as_verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from limbeck.distill.filter import Candidate
    from limbeck.distill.recipe import Recipe


def distill(
    recipe: Recipe | str | Path,
    *,
    out: str | Path | None = None,
    base: str | Path | None = None,
    resume: bool = False,
    only: str | None = None,
    verify: Callable[[Candidate], object] | NamedVerifier | None = None,
    progress: Progress | None = None,
) -> Run:
    """Distil a teacher into a student as a recipe says, measure the student, and write the report.

    Steps whose output is already there are skipped, so a run can be called again after it was stopped.

    Args:
        recipe: A recipe, or the path of one in TOML.
        out: The run's folder; None means `runs/NAME`.
        base: Folder that relative paths in the recipe start from; None means the recipe file's own folder,
            or the working folder for a recipe that was made in Python.
        resume: Go on with a capture or a training that was stopped half-way.
        only: Run this step alone: corpus, terms, capture, filter, build, train, evaluate or report.
        verify: Called with every answer (`limbeck.distill.filter.Candidate`) that the teacher wrote; returns whether
            it may train the student.
        progress: Hears of every step.

    Raises:
        LimbeckError: Anything the user can mend; the message says what and how.
    """
    from limbeck.distill.recipe import load_recipe
    from limbeck.distillation import BINDING, FREE, Distillation, distil

    if isinstance(recipe, str | Path):
        base = Path(recipe).parent if base is None else base
        recipe = load_recipe(Path(recipe))
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    verifier = None if verify is None else as_verifier(verify)
    base = Path(base or ".")
    with open_run(folder, recipe.as_json(), binding=BINDING, free=FREE) as run:
        distil(Distillation(recipe, run, base, resume, progress or Silent(), verifier), only)
    return run


def read_report(folder: Path) -> dict[str, Any]:
    """Return a finished run's `report.json`.

    Raises:
        RunError: There is no run, or it is not finished.
    """
    run = read_run(folder)
    if not run.path("manifest.json").is_file() or not run.path("report.json").is_file():
        raise RunError(
            f"{folder} is unfinished (no manifest); go on with: limbeck distill RECIPE --resume"
        )
    try:
        return read_json(run.path("report.json"))
    except ValueError:
        raise RunError(
            f"{run.path('report.json')} is damaged; remove it and distill again"
        ) from None


def report_tables(report: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield what a terminal shows of a report."""
    from limbeck.distill.report import summary_table

    yield summary_table(report)


def store_table(folder: Path) -> RenderableType:
    """Return a table of what a store holds and what each part costs.

    Raises:
        StoreError: There is no store.
    """
    from rich.table import Table

    from limbeck.distill.store import describe

    table = Table("what", "value", box=None, pad_edge=False)
    for key, value in describe(folder).items():
        if isinstance(value, dict):
            for inner, figure in value.items():
                table.add_row(f"{key}.{inner}", _shown(figure))
        else:
            table.add_row(key, _shown(value))
    return table


def verify_store(folder: Path) -> str:
    """Read every shard, check every checksum, and say so in one line.

    Raises:
        StoreError: Something is missing, foreign or damaged; the shard is named.
    """
    from limbeck.distill.store import StoreReader

    reader = StoreReader(folder)
    reader.verify()
    return f"{folder}: {len(reader)} documents, every checksum right"


def export_store(folder: Path, path: Path, k: int) -> str:
    """Write a store's most likely `k` tokens a position as Parquet, and say so in one line.

    Raises:
        StoreError: Something is missing, foreign or damaged.
    """
    from limbeck.distill.store import StoreReader, export_parquet

    rows = export_parquet(StoreReader(folder), path, k)
    return f"{path}: {rows} rows"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def open_chat(model: str) -> Chat:
    """Load a run's student, or any model, for a conversation.

    Raises:
        LimbeckError: There is no such model, or the run has no student yet.
    """
    from limbeck.backends import load

    folder = Path(model)
    if (folder / "recipe.json").is_file():
        student = folder / "student"
        if not student.is_dir():
            raise RunError(
                f"{folder} has no student yet; go on with: limbeck distill RECIPE --resume"
            )
        model = str(student)
    return Chat(model, load(model, dtype="bfloat16"))


class Chat:
    """A conversation with one model; remembers its turns."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self._model = model
        self._turns: list[Any] = []

    def answer(
        self, question: str, *, temperature: float, max_new_tokens: int, seed: int
    ) -> Iterator[str]:
        """Yield the answer to the next question, piece by piece."""
        from limbeck.backends.talk import stream_reply
        from limbeck.chat import Message

        self._turns.append(Message("user", question))
        pieces: list[str] = []
        for piece in stream_reply(
            self._model,
            self._turns,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        ):
            pieces.append(piece)
            yield piece
        self._turns.append(Message("assistant", "".join(pieces)))
