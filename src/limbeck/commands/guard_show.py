"""How the guard's commands open a folder and print what they found: a table for people, JSON for programs."""

import getpass
import json
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from limbeck.guard.plain import plain

if TYPE_CHECKING:
    from limbeck.guard.state.home import State

Folder = Annotated[
    Path,
    typer.Option("--folder", envvar="LIMBECK_GUARD_FOLDER", help="The guard's folder."),
]
FOLDER = Path("guard")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
By = Annotated[str, typer.Option(help="The name of the person who answers for this.")]
_NOTHING = "-"


@contextmanager
def opened(folder: Path) -> Generator["State"]:
    """Open a guard's folder for one command."""
    from limbeck.extras import need

    need("limbeck guard", "guard", "sqlalchemy", "alembic")
    from limbeck.guard.state.home import open_state

    state = open_state(folder)
    try:
        yield state
    finally:
        state.close()


def user() -> str:
    """Return who runs the command, for the timeline."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "the command line"


def one(value: Any, as_json: bool) -> None:
    """Print one value, a line for each of its fields."""
    fields = plain(value)
    if as_json:
        _json(fields)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, content in fields.items():
        table.add_row(name.replace("_", " "), _text(content))
    _print(table)


def many(values: Iterable[Any], columns: tuple[str, ...], as_json: bool) -> None:
    """Print values as rows of a few of their fields, or whole as JSON."""
    rows = [plain(value) for value in values]
    if as_json:
        _json(rows)
        return
    table = Table(*(name.replace("_", " ") for name in columns), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_text(row[name]) for name in columns))
    _print(table)


def secret(value: Any, text: str, as_json: bool) -> None:
    """Print a new key, the only time that anybody sees it."""
    if as_json:
        _json({**plain(value), "secret": text})
        return
    one(value, as_json=False)
    print(f"\n{text}\n\nThis is shown once: what is kept is its hash.")


def _json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print(table: Table) -> None:
    Console(soft_wrap=True, highlight=False).print(table)


def _text(content: Any) -> str:
    match content:
        case None | "" | []:
            return _NOTHING
        case {"measure": measure, "window": window, "limit": limit}:
            return f"{measure}/{window}={limit}"
        case dict():
            return ", ".join(f"{k} {_text(v)}" for k, v in content.items())
        case [{"measure": _}, *_] | [str(), *_]:
            return ", ".join(_text(item) for item in content)
        case list():
            return "\n".join(_text(item) for item in content)
        case bool():
            return "yes" if content else "no"
        case _:
            return str(content).replace("[", "\\[")
