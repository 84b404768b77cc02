"""The Python API: ties models to flows. Heavy parts are imported when a flow starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limbeck.artefact import read_json
from limbeck.errors import RecipeError, RunError
from limbeck.launch import join
from limbeck.progress import Progress, Silent
from limbeck.run import Run, open_run, read_run
from limbeck.verifier import NamedVerifier, as_verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from rich.console import RenderableType

    from limbeck.cluster import Cluster
    from limbeck.distill.filter import Candidate
    from limbeck.distill.recipe import Recipe
    from limbeck.trace.sealing import Sealed


def distill(
    recipe: Recipe | str | Path,
    *,
    out: str | Path | None = None,
    base: str | Path | None = None,
    resume: bool = False,
    only: str | None = None,
    cluster: Cluster | None = None,
    verify: Callable[[Candidate], object] | NamedVerifier | None = None,
    progress: Progress | None = None,
) -> Run:
    """Distil a teacher into a student as a recipe says, measure the student, and write the report.

    Steps whose output is already there are skipped, so a run can be called again after it was stopped. In a
    launch of several processes (`accelerate launch`, `torchrun`) the first does everything and the others join
    in the training; all of them must see the run's folder.

    Args:
        recipe: A recipe, or the path of one in TOML.
        out: The run's folder; None means `runs/NAME`.
        base: Folder that relative paths in the recipe start from; None means the recipe file's own folder,
            or the working folder for a recipe that was made in Python.
        resume: Go on with a capture or a training that was stopped half-way.
        only: Run this step alone: corpus, terms, capture, filter, build, train, evaluate or report.
        cluster: Capture on this Ray cluster; None means on this machine.
        verify: Called with every answer (`limbeck.distill.filter.Candidate`) that the teacher wrote; returns whether
            it may train the student.
        progress: Hears of every step.

    Raises:
        LimbeckError: Anything the user can mend; the message says what and how.
    """
    from limbeck.distill.recipe import load_recipe
    from limbeck.distillation import BINDING, FREE, Distillation, distil, follow

    if isinstance(recipe, str | Path):
        base = Path(recipe).parent if base is None else base
        recipe = load_recipe(Path(recipe))
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    verifier = None if verify is None else as_verifier(verify)
    base = Path(base or ".")
    with join() as launch:
        if not launch.leads:
            run = Run(folder, recipe.as_json())
            follow(Distillation(recipe, run, base, resume, Silent(), launch), launch.calls())
            return run
        with open_run(folder, recipe.as_json(), binding=BINDING, free=FREE) as run:
            heard = progress or Silent()
            flow = Distillation(
                recipe, run, base, resume, heard, launch, cluster=cluster, verifier=verifier
            )
            distil(flow, only)
    return run


def validate(
    *,
    student: str | Path,
    teacher: str | Path | None = None,
    tasks: Sequence[str | Path] = (),
    margin: float = 0.9,
    out: str | Path,
    undistilled: str | Path | None = None,
    training: Sequence[str | Path] = (),
    limit: int | None = None,
    sequential: bool = False,
    dtype: str = "float32",
    seed: int = 0,
    judges: Sequence[str] = (),
    judge_precision: float | None = None,
    timed_blocks: int | None = 8,
    base: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Say what a student kept of its teacher: three ledgers, one verdict, with controls.

    Args:
        student: A folder, a run's folder, `hf:org/name`, `packaged:name`, or `openai:NAME@URL`.
        teacher: The same; None takes the teacher of the run that made the student.
        tasks: Names of built-in tasks or paths of task files in TOML; none takes the quick built-in set.
        margin: Share of the teacher's above-chance quality that must be kept, in (0, 1]; fixed before scoring.
        out: The validation's folder.
        undistilled: The student before its distillation; None takes that of the run that made it.
        training: Files with text that the student was trained on, beside what its run knows.
        limit: Items a task at the most.
        sequential: Stop scoring as soon as the evidence suffices.
        dtype: Number format in which local models are scored.
        seed: Orders the items and seeds the damaged control.
        judges: Other models that compare written answers, as `NAME=URL`, if they pass an examination (docs/judges.md).
        judge_precision: Half-width of the judged win rate at which asking stops; None asks about every item.
        timed_blocks: Blocks of interleaved timing, at least 6; None times nothing.
        base: Folder that relative paths start from; None takes the working folder.
        resume: Go on with scoring that was stopped half-way.
        progress: Hears of every step.

    Raises:
        LimbeckError: Anything the user can mend; the message says what and how.
    """
    from limbeck.validate.builtin import DEFAULT
    from limbeck.validation import BINDING, Request, Validation, teacher_of, validate_models

    if dtype not in ("float32", "bfloat16"):
        raise RecipeError(f"dtype must be float32 or bfloat16, got {dtype}")
    start = Path(base or ".")
    request = Request(
        teacher=str(teacher) if teacher is not None else teacher_of(str(student), start),
        student=str(student),
        tasks=tuple(map(str, tasks)) or DEFAULT,
        margin=margin,
        undistilled=None if undistilled is None else str(undistilled),
        training=tuple(map(str, training)),
        limit=limit,
        sequential=sequential,
        dtype=dtype,
        seed=seed,
        judges=tuple(judges),
        judge_precision=judge_precision,
        timed_blocks=timed_blocks,
    )
    with open_run(Path(out), request.as_json(), binding=BINDING) as run:
        validate_models(Validation(request, run, start, resume, progress or Silent()))
    return run


def commit_coins(
    prompts: str | Path,
    *,
    teacher: str,
    out: str | Path,
    keys: str | Path | None = None,
    temperature: float = 1.0,
    max_new_tokens: int = 128,
    seed: int = 0,
    base: str | Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw two answers of a teacher to every prompt and commit to them and to a secret key, before a beacon is known.

    Args:
        prompts: JSONL with `prompt` and perhaps `account`, or text with one prompt a line.
        teacher: A folder, a run's folder, `hf:org/name` or `packaged:name`.
        out: The coins' folder.
        keys: Folder of a ledger's keys; None makes fresh ones below `out`.
        temperature: The answers are drawn at this.
        max_new_tokens: Of an answer at the most.
        seed: Of the answers; bits come from the key.
        base: Folder that a relative teacher starts from; None takes the working folder.
        progress: Hears of it.

    Raises:
        LimbeckError: Anything the user can mend; the message says what and how.
    """
    from limbeck.drawing import Drawing
    from limbeck.tracing import commit_answers, read_prompts

    commit_answers(
        read_prompts(Path(prompts)),
        teacher,
        Path(out),
        drawing=Drawing(temperature, max_new_tokens, seed),
        keys=None if keys is None else Path(keys),
        base=Path(base or "."),
        progress=progress or Silent(),
    )


def seal_coins(
    out: str | Path,
    *,
    beacon: str | None = None,
    beacon_time: datetime | None = None,
    keys: str | Path | None = None,
) -> Sealed:
    """Toss the coins of a folder that was committed to.

    Args:
        out: The coins' folder.
        beacon: A public value, published after the commitment; None binds the bits to the key alone.
        beacon_time: When it was published, aware.
        keys: As for `commit_coins`.

    Raises:
        TraceError: There is no commitment, the coins are sealed, or the beacon was public too early.
    """
    from limbeck.trace.sealing import Beacon
    from limbeck.tracing import seal_answers

    value = None if beacon is None else Beacon(beacon, beacon_time)
    return seal_answers(Path(out), value, keys=None if keys is None else Path(keys))


def trace(
    *,
    coins: str | Path,
    suspect: str | Path,
    references: Sequence[str | Path] = (),
    accounts: Sequence[str] = (),
    alpha: float = 1e-3,
    weights: Literal["fitted", "one"] = "fitted",
    by_account: bool = False,
    text_only: bool = False,
    kinship: bool = False,
    candidates: Sequence[str] = (),
    most: int | None = None,
    dtype: str = "float32",
    out: str | Path | None = None,
    base: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Say whether a suspect was trained on what sealed coins served, and return the report.

    Args:
        coins: A folder of sealed coins.
        suspect: A folder, a run's folder, `hf:org/name`, `packaged:name`, or `openai:NAME@URL`.
        references: Models that saw neither answer; none takes the teacher, where it can be loaded.
        accounts: Use the coins of these alone; none uses all.
        alpha: Chance of a false accusation, in (0, 1).
        weights: How references are weighed (`limbeck.trace.audit`).
        by_account: Say which account leaked too, by e-BH; takes all coins.
        text_only: Go by the suspect's text alone.
        kinship: Compare tokenizers, sizes, weights and activations too, which never enters the verdict.
        candidates: Other candidate teachers as `NAME=MODEL`, beside whom the suspect's text is compared with the
            teacher's; this never enters the verdict either.
        most: Use no more coins than this.
        dtype: Number format in which local models are scored.
        out: Folder for `report.json` and `report.html`; None writes nothing.
        base: Folder that relative models start from; None takes the working folder.
        progress: Hears of it.

    Raises:
        LimbeckError: Anything the user can mend; the message says what and how.
    """
    from limbeck.errors import TraceError
    from limbeck.supporting import Wanted, parse_candidates
    from limbeck.tracing import Question
    from limbeck.tracing import trace as run_trace

    if not 0 < alpha < 1:
        raise TraceError(f"alpha must lie between 0 and 1, got {alpha}")
    question = Question(
        suspect=str(suspect),
        references=tuple(map(str, references)),
        accounts=tuple(accounts),
        alpha=alpha,
        weights=weights,
        at_most=most,
        by_account=by_account,
        text_only=text_only,
        supporting=Wanted(kinship, parse_candidates(candidates)),
        dtype=dtype,
    )
    done = run_trace(question, Path(coins), base=Path(base or "."), progress=progress or Silent())
    if out is not None:
        done.write(Path(out))
    return done.report


def trace_siblings(
    *,
    contexts: str | Path,
    suspect: str | Path,
    teacher: str | Path,
    before: str | Path,
    siblings: Sequence[str | Path],
    alpha: float = 0.01,
    candidates: int = 32,
    dtype: str = "float32",
    base: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Rank a teacher among the re-runs of its last training phase, by how much of it a suspect holds.

    Args:
        contexts: Text with one context a line; all of them are used.
        suspect: A folder, a run's folder, `hf:org/name` or `packaged:name`; so are the others.
        teacher: The real teacher.
        before: The teacher before its last phase.
        siblings: The re-runs; p can be no smaller than one in one more.
        alpha: Chance of a false accusation, in (0, 1).
        candidates: Next tokens that are compared at each context.
        dtype: Number format in which models are heard.
        base: Folder that relative models start from; None takes the working folder.
        progress: Hears of it.

    Raises:
        TraceError: Too few siblings for alpha, or models that cannot be compared.
    """
    from dataclasses import asdict

    from limbeck.errors import TraceError
    from limbeck.trace.siblings import siblings_needed
    from limbeck.tracing import Family, read_prompts
    from limbeck.tracing import trace_siblings as rank

    if not 0 < alpha < 1:
        raise TraceError(f"alpha must lie between 0 and 1, got {alpha}")
    least = siblings_needed(alpha)
    family = Family(str(teacher), str(before), tuple(map(str, siblings)))
    found = asdict(
        rank(
            family,
            str(suspect),
            [text for text, _ in read_prompts(Path(contexts))],
            candidates=candidates,
            base=Path(base or "."),
            dtype=dtype,
            progress=progress or Silent(),
        )
    )
    few = len(siblings) < least
    verdict = "undecided" if few else "distilled" if found["p_value"] <= alpha else "not shown"
    because = f"{len(siblings)} siblings are fewer than the {least} that alpha needs" if few else ""
    return found | {"alpha": alpha, "verdict": verdict, "because": because}


def trace_tables(report: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield what the terminal shows of an audit."""
    from limbeck.trace.report import tables

    return tables(report)


def task_table() -> RenderableType:
    """Return a table of the built-in tasks."""
    from rich.table import Table

    from limbeck.validate.builtin import DEFAULT, NAMES, about, builtin

    table = Table("task", "items", "scored by", "chance", "shows", box=None, pad_edge=False)
    for name in NAMES:
        task = builtin(name)
        star = " *" if name in DEFAULT else ""
        settings = task.settings
        table.add_row(
            f"{name}{star}",
            str(len(task.items)),
            settings.scorer,
            str(settings.chance),
            about(name),
        )
    table.caption = "* taken when no task is named; your own: --tasks FILE.toml (docs/validate.md)"
    table.caption_justify = "left"
    return table


def task_sample(name: str, count: int) -> Iterator[str]:
    """Yield how a task is scored, and its first items as a model meets them.

    Raises:
        TaskError: There is no such task, or it is malformed.
    """
    from limbeck.opening import Outside, open_task

    task = open_task(name, Path(), None)
    settings = task.settings
    yield f"{task.name}: {settings.scorer}, chance {settings.chance}, hash {task.sha256[:16]}"
    if settings.about:
        yield settings.about
    if isinstance(task, Outside):
        yield "its items are read by another tool"
        return
    yield f"{len(task.items)} items, {len({i.cluster for i in task.items})} clusters, asked as {task.ask}"
    for item in task.items[:count]:
        yield f"\n--- {item.id}\n{item.prompt}"
        for choice in item.choices:
            yield f"{'*' if choice == item.gold else ' '} {choice!r}"
        if not item.choices:
            yield f"gold: {item.gold}"


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
    """Yield what a terminal shows of a report, of a distillation or of a validation."""
    from limbeck.validate.report import FORMAT, tables

    if report["format"] == FORMAT:
        yield from tables(report)
        return
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


def export_model(source: str, out: Path, to: str, quantise: str | None = None) -> tuple[str, ...]:
    """Write a run's student, or any model, in a format that another engine runs; say so in a few lines.

    Args:
        source: A run's folder, a model folder, `hf:…` or `packaged:…`.
        out: Where to write; absent or empty.
        to: `safetensors`, `gguf` or `onnx`.
        quantise: Number format of the weights; None keeps theirs.

    Raises:
        LimbeckError: There is no such model, or the format cannot hold it.
    """
    from limbeck.backends import load
    from limbeck.export import export
    from limbeck.export.formats import parse_target

    target = parse_target(to, quantise)
    model = _student_of(source)
    card = Path(model) / "README.md"
    done = export(
        load(model, dtype=_number_format(model)),
        out,
        target,
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
    )
    return (f"{out}: {to}, {done.bytes / 1e6:.1f} MB", *done.notes)


def _number_format(model: str) -> Literal["float32", "bfloat16"]:
    """Return the number format in which a model's weights lie on disk, as far as its folder says."""
    config = Path(model) / "config.json"
    stated = read_json(config).get("dtype") if config.is_file() else None
    return "bfloat16" if stated == "bfloat16" else "float32"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def open_chat(model: str) -> Chat:
    """Load a run's student, or any model, for a conversation.

    Raises:
        LimbeckError: There is no such model, or the run has no student yet.
    """
    from limbeck.backends import load

    folder = Path(model)
    temperature = _written_at(folder) if (folder / "recipe.json").is_file() else 0.0
    model = _student_of(model)
    return Chat(model, load(model, dtype="bfloat16"), temperature)


def _written_at(run: Path) -> float:
    """Return the temperature at which a run's own text was written, 0 where its text was given."""
    from limbeck.artefact import read_json

    generate = read_json(run / "recipe.json").get("generate")
    return generate["temperature"] if generate else 0.0


def _student_of(model: str) -> str:
    """Return the folder of a run's student, and any other model as it is."""
    folder = Path(model)
    if not (folder / "recipe.json").is_file():
        return model
    student = folder / "student"
    if not student.is_dir():
        raise RunError(f"{folder} has no student yet; go on with: limbeck distill RECIPE --resume")
    return str(student)


class Chat:
    """A conversation with one model; remembers its turns."""

    def __init__(self, name: str, model: Any, temperature: float = 0.0) -> None:
        self.name = name
        self.temperature = temperature
        """What an answer is drawn at where the caller states nothing."""
        self._model = model
        self._turns: list[Any] = []

    def answer(
        self, question: str, *, temperature: float | None, max_new_tokens: int, seed: int
    ) -> Iterator[str]:
        """Yield the answer to the next question, piece by piece; temperature 0 takes the likeliest token."""
        from limbeck.backends.talk import stream_reply
        from limbeck.chat import Message

        self._turns.append(Message("user", question))
        pieces: list[str] = []
        for piece in stream_reply(
            self._model,
            self._turns,
            max_new_tokens=max_new_tokens,
            temperature=self.temperature if temperature is None else temperature,
            seed=seed,
        ):
            pieces.append(piece)
            yield piece
        self._turns.append(Message("assistant", "".join(pieces)))
