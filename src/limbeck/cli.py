"""Parse, call, print; the heavy parts are imported when a command uses them."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from limbeck.errors import LimbeckError

_INTERRUPTED = 130

app = typer.Typer(
    name="limbeck",
    help="Distil a language model, and show with measurements what the student kept.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
store_app = typer.Typer(help="Look into a store of teacher targets.", no_args_is_help=True)
app.add_typer(store_app, name="store")

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
) -> None:
    """Distil a teacher into a smaller student, measure it and write the report."""
    from limbeck.distill.recipe import load_recipe
    from limbeck.terminal import TerminalProgress
    from limbeck.verifier import load_verifier
    from limbeck.workbench import distill as run_distill

    parsed = load_recipe(recipe, overrides or [])
    folder = out or Path("runs") / parsed.name
    verifier = None if verify is None else load_verifier(verify)
    try:
        with TerminalProgress(Console(stderr=True)) as progress:
            run_distill(
                parsed,
                out=folder,
                base=recipe.parent,
                resume=resume,
                only=only,
                verify=verifier,
                progress=progress,
            )
    except KeyboardInterrupt:
        print("limbeck: stopped; what was finished is kept, go on with --resume", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None
    if only is None:
        _print_report(folder)


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
        float, typer.Option(min=0.0, help="0 always takes the likeliest token.")
    ] = 0.0,
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
        print(f"limbeck: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"limbeck: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)


def _print_report(folder: Path) -> None:
    from limbeck.workbench import read_report, report_tables

    figures = read_report(folder)
    console = Console()
    for part in report_tables(figures):
        console.print(part)
    for what, path in (("report", folder / "report.html"), ("student", folder / "student")):
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
