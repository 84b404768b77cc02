"""Parse, call, print; the heavy parts are imported when a command uses them."""

import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from limbeck.commands import guard, trace
from limbeck.errors import LimbeckError, RecipeError, TrainingError
from limbeck.launch import leads
from limbeck.progress import Progress, Silent

_INTERRUPTED = 130
_SHARED = (RecipeError, TrainingError)
"""Errors that all processes of a launch meet alike; the first says it for all."""

app = typer.Typer(
    name="limbeck",
    help="Distil a language model, and show with measurements what the student kept.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
store_app = typer.Typer(help="Look into a store of teacher targets.", no_args_is_help=True)
app.add_typer(store_app, name="store")
tasks_app = typer.Typer(help="Look at the tasks that validate scores on.", no_args_is_help=True)
app.add_typer(tasks_app, name="tasks")
app.add_typer(guard.app, name="guard")
app.add_typer(trace.app, name="trace")

RunFolder = Annotated[Path, typer.Argument(help="A folder that distill wrote.")]
StoreFolder = Annotated[Path, typer.Argument(help="A store's folder, such as RUN/store.")]


@app.command()
def distill(
    recipe: Annotated[Path, typer.Argument(help="A recipe in TOML.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. [default: runs/NAME]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished step.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            help="One step alone: corpus, terms, capture, filter, build, train, evaluate, report."
        ),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Run this file; its function accepts or rejects answers.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Capture on a Ray cluster: local, auto or the head's HOST:PORT."
        ),
    ] = None,
    ray_accelerators: Annotated[
        float | None,
        typer.Option(
            help="Accelerators of each Ray worker. [default: 1 where the cluster has any]"
        ),
    ] = None,
) -> None:
    """Distil a teacher into a smaller student, measure it and write the report."""
    from limbeck.cluster import Cluster
    from limbeck.distill.recipe import load_recipe
    from limbeck.verifier import load_verifier
    from limbeck.workbench import distill as run_distill

    parsed = load_recipe(recipe, overrides or [])
    cluster = None if ray is None else Cluster(ray, ray_accelerators)
    folder = out or Path("runs") / parsed.name
    verifier = None if verify is None else load_verifier(verify)
    try:
        with _watched() as progress:
            run_distill(
                parsed,
                out=folder,
                base=recipe.parent,
                resume=resume,
                only=only,
                cluster=cluster,
                verify=verifier,
                progress=progress,
            )
    except KeyboardInterrupt:
        if leads(os.environ):
            print(
                "limbeck: stopped; what was finished is kept, go on with --resume", file=sys.stderr
            )
        raise typer.Exit(_INTERRUPTED) from None
    if only is None and leads(os.environ):
        _print_report(folder)


@app.command()
def validate(
    student: Annotated[
        str,
        typer.Option(help="A run's folder, a model folder, hf:…, packaged:… or openai:NAME@URL."),
    ],
    out: Annotated[Path, typer.Option(help="The validation's folder.")],
    teacher: Annotated[
        str | None, typer.Option(help="The same. [default: the teacher of the student's run]")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE.toml", help="A task; may be repeated. [default: the quick ones]"
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Share of the teacher's above-chance quality that must be kept.")
    ] = 0.9,
    undistilled: Annotated[
        str | None, typer.Option(help="The student before its distillation, a control.")
    ] = None,
    training: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Text that the student was trained on; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Items a task at the most.")] = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Stop scoring when the evidence suffices.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16, for local models.")] = "float32",
    seed: Annotated[int, typer.Option(help="Orders items, seeds the damaged control.")] = 0,
    judge: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=URL", help="A model that compares answers; may be repeated."),
    ] = None,
    judge_precision: Annotated[
        float | None, typer.Option(help="Half-width of the judged win rate at which to stop.")
    ] = None,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Time both models, block by block.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with unfinished scoring.")
    ] = False,
) -> None:
    """Say what a student kept of its teacher: three ledgers, one verdict, with controls."""
    from limbeck.terminal import TerminalProgress
    from limbeck.workbench import validate as run_validate

    try:
        with TerminalProgress(Console(stderr=True)) as progress:
            run_validate(
                student=student,
                teacher=teacher,
                tasks=tasks or (),
                margin=margin,
                out=out,
                undistilled=undistilled,
                training=training or (),
                limit=limit,
                sequential=sequential,
                dtype=dtype,
                seed=seed,
                judges=judge or (),
                judge_precision=judge_precision,
                timed_blocks=8 if timing else None,
                resume=resume,
                progress=progress,
            )
    except KeyboardInterrupt:
        print("limbeck: stopped; what was scored is kept, go on with --resume", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None
    _print_report(out)


@tasks_app.command("list")
def tasks_list() -> None:
    """List the built-in tasks."""
    from limbeck.workbench import task_table

    Console().print(task_table())


@tasks_app.command("show")
def tasks_show(
    name: Annotated[str, typer.Argument(help="A built-in task, or a task file in TOML.")],
    items: Annotated[int, typer.Option(min=0, help="How many items to show.")] = 3,
) -> None:
    """Show how a task is scored, and its first items."""
    from limbeck.workbench import task_sample

    for line in task_sample(name, items):
        print(line)


@app.command()
def report(run: RunFolder) -> None:
    """Print a finished run's figures and where its report lies."""
    _print_report(run)


@app.command()
def chat(
    model: Annotated[
        str, typer.Argument(help="A run's folder, a model folder, hf:… or packaged:…")
    ],
    prompt: Annotated[
        str | None, typer.Option(help="Answer this once instead of chatting.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="0 always takes the likeliest token.  [default: a run's generate.temperature, else 0]",
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="Seeds the sampling.")] = 0,
) -> None:
    """Try a student, or any model, in the terminal."""
    from limbeck.workbench import open_chat

    session = open_chat(model)
    if prompt is not None:
        _say(
            session.answer(
                prompt, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed
            )
        )
        return
    greeting = f"{session.name}; an empty line or Ctrl-D ends the chat"
    Console(stderr=True).print(greeting, style="dim", markup=False, highlight=False)
    while question := _ask():
        _say(
            session.answer(
                question, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed
            )
        )


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="A run's folder, a model folder, hf:… or packaged:…")
    ],
    to: Annotated[str, typer.Option(help="safetensors, gguf or onnx.")],
    out: Annotated[Path, typer.Option(help="The folder to write; absent or empty.")],
    quantise: Annotated[
        str | None,
        typer.Option(
            help="Number format of the weights: gguf f32, bf16, f16, q8_0, q5_0, q4_0; onnx int8; "
            "safetensors float32, bfloat16, float16. [default: as they are]"
        ),
    ] = None,
) -> None:
    """Write a student in a format that another engine runs."""
    from limbeck.workbench import export_model

    for line in export_model(model, out, to, quantise):
        print(line)


@app.command()
def doctor() -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from limbeck.doctor import examine, table

    findings = examine()
    Console().print(table(findings))
    if any(f.missing and f.needed for f in findings):
        raise typer.Exit(1)


@store_app.command("info")
def store_info(store: StoreFolder) -> None:
    """Print what a store holds and what each part costs in bytes."""
    from limbeck.workbench import store_table

    Console().print(store_table(store))


@store_app.command("verify")
def store_verify(store: StoreFolder) -> None:
    """Read every shard and check every checksum."""
    from limbeck.workbench import verify_store

    print(verify_store(store))


@store_app.command("export")
def store_export(
    store: StoreFolder,
    path: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    k: Annotated[int, typer.Option(min=1, help="Entries a position at the most.")] = 50,
) -> None:
    """Write top-k targets as Parquet, for other tools."""
    from limbeck.workbench import export_store

    print(export_store(store, path, k))


def main() -> None:
    """Run the command line; a deliberate error becomes one sentence and an exit code."""
    try:
        app()
    except LimbeckError as error:
        if leads(os.environ) or not isinstance(error, _SHARED):
            print(f"limbeck: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"limbeck: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)


def _watched() -> AbstractContextManager[Progress]:
    """Return progress on the terminal; of processes that were launched together only the first shows any."""
    from limbeck.terminal import TerminalProgress

    return TerminalProgress(Console(stderr=True)) if leads(os.environ) else nullcontext(Silent())


def _print_report(folder: Path) -> None:
    from limbeck.workbench import read_report, report_tables

    figures = read_report(folder)
    console = Console()
    for part in report_tables(figures):
        console.print(part, markup=False, highlight=False)
    for what, path in (("report", folder / "report.html"), ("student", folder / "student")):
        if not path.exists():
            continue
        console.print(f"{what:<8} {path}", markup=False, highlight=False, soft_wrap=True)


def _say(pieces: Iterable[str]) -> None:
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""
