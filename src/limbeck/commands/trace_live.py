"""`limbeck trace collect`: make the coins that a gateway tossed a folder that can be audited."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command("collect")(collect)


def collect(
    guard: Annotated[Path, typer.Argument(help="The guard's folder, with its guard.toml.")],
    out: Annotated[Path, typer.Option(help="The coins' folder, a new one.")] = Path("coins"),
    teacher: Annotated[
        str | None,
        typer.Option(help="The model that answered, where an audit can load it as a reference."),
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="An earlier checkpoint of the guard's ledger; may be repeated."),
    ] = None,
) -> None:
    """Check the coins that a gateway tossed against its ledger, and make them a folder to audit."""
    from limbeck.guard.coinage import read_key
    from limbeck.guard.config import load_config
    from limbeck.guard.places import Places
    from limbeck.ledger.keys import read_keys
    from limbeck.ledger.reading import read_log
    from limbeck.trace import live

    places = Places((guard / "guard.toml").resolve())
    config = load_config(places.config)
    key = read_key(config.coins.key_env)
    ledger = places.ledger(config)
    keys = read_keys(ledger.parent)
    notes = [path.read_text(encoding="utf-8") for path in known or ()]
    with read_log(ledger) as log:
        found = live.read_live(places.coins, log, keys, known=notes)
    about = {"name": teacher or "", "weights_sha256": None}
    count = live.collect(
        found,
        out,
        keys,
        key=key,
        beacon=config.coins.beacon,
        teacher=about,
        now=datetime.now(UTC),
    )
    typer.echo(
        f"{count} coins in {out / 'coins.jsonl'}; {len(found.coins) - count} were asked before or equal, "
        f"{found.unrecorded} stand in no record and were left out"
    )
    typer.echo(
        "they convince their owner: a bundle for others needs coins from `limbeck trace seal`"
    )
