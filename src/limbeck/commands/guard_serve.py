"""`limbeck guard serve`: the gateway, its workers and its keeper."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limbeck.commands.guard_show import FOLDER, Folder

if TYPE_CHECKING:
    from limbeck.guard.coinage import Coinage
    from limbeck.guard.places import Places


def register(app: typer.Typer) -> None:
    """Add this command to `limbeck guard`."""
    app.command("serve")(serve)


def serve(
    upstream: Annotated[
        str | None,
        typer.Option(help="The model server: http://HOST:PORT, https://HOST or unix:PATH."),
    ] = None,
    folder: Folder = FOLDER,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The guard's settings; accounts and ledger are beside them. [default: FOLDER/guard.toml]"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that serve. [default: 2]")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="[default: 8080]")] = None,
    admin_port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Metrics and administration. [default: port + 1]"),
    ] = None,
) -> None:
    """Serve an OpenAI-compatible gateway in front of a model server, until Ctrl-C or SIGTERM."""
    from limbeck.guard.places import places_of
    from limbeck.guard.serve import serve as run

    given: dict[str, Any] = {
        "workers": workers,
        "host": host,
        "port": port,
        "admin_port": admin_port,
    }
    server = {name: value for name, value in given.items() if value is not None}
    overrides: dict[str, dict[str, Any]] = {"server": server} if server else {}
    if upstream is not None:
        overrides["upstream"] = {"url": upstream}
    places = places_of(config or folder / "guard.toml", overrides)
    run(places, _coinage(places))


def _coinage(places: "Places") -> "Coinage | None":
    """Return trace's rule of tossing under the configured key; guard itself knows nothing of trace."""
    from limbeck.guard.coinage import Coinage, read_key
    from limbeck.guard.config import load_config

    table = load_config(places.config, places.overrides).coins
    if table.share == 0:
        return None
    from limbeck.trace.coins import Pair, toss

    key = read_key(table.key_env)

    def bit(prompt: str, first: str, second: str, account: str) -> int:
        return toss(key, table.beacon, Pair(prompt, first, second, account).hash)

    def digest(prompt: str, first: str, second: str, account: str) -> str:
        return Pair(prompt, first, second, account).hash.hex()

    return Coinage(bit, digest)
