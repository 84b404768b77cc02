"""`limbeck guard console`: the console and the admin API, on their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.commands.guard_show import FOLDER, Folder, opened
from limbeck.errors import LedgerError

if TYPE_CHECKING:
    from limbeck.guard.admin.log_view import LogView


def register(app: typer.Typer) -> None:
    """Add this command to `limbeck guard`."""
    app.command("console")(console)


def console(
    folder: Folder = FOLDER,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8412,
    ledger: Annotated[
        Path | None,
        typer.Option(help="The ledger's file. [default: FOLDER/ledger/ledger.db, if it is there]"),
    ] = None,
) -> None:
    """Serve the console (/console) and the admin API (/admin/v1) without a gateway."""
    import uvicorn

    from limbeck.guard.console.office import office
    from limbeck.guard.state.stores import open_store

    with opened(folder) as state:
        store = open_store(state)
        try:
            app = office(state, store, _ledger(folder, ledger))
            print(f"console: http://{host}:{port}/console", flush=True)
            uvicorn.run(app, host=host, port=port, log_level="warning", ws="none")
        finally:
            store.shut()


def _ledger(folder: Path, given: Path | None) -> "LogView | None":
    """Return the ledger to look at; its keys lie beside it."""
    from limbeck.guard.admin.log_view import LogView
    from limbeck.ledger.keys import read_keys

    path = given or folder / "ledger" / "ledger.db"
    if not path.is_file():
        if given is not None:
            raise LedgerError(f"there is no ledger at {given}")
        return None
    return LogView(path, read_keys(path.parent).secret)
