"""`limbeck guard verify` and `limbeck guard ledger …`: look into a ledger, export an account, verify a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.errors import LedgerError

if TYPE_CHECKING:
    from limbeck.ledger.keys import Keys

ledger_app = typer.Typer(
    help="Look into the ledger, take checkpoints, export an account.", no_args_is_help=True
)

LogFile = Annotated[Path, typer.Argument(help="The ledger's file.")]
KeyFolder = Annotated[Path, typer.Option("--keys", help="The folder that keygen wrote.")]


def register(app: typer.Typer) -> None:
    """Add these commands to `limbeck guard`."""
    app.add_typer(ledger_app, name="ledger")
    app.command("verify")(verify)


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle: a zip or a folder.")],
    public_key: Annotated[
        Path | None, typer.Option(help="The ledger's public key, got from elsewhere: public.txt.")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="A checkpoint that you got earlier or elsewhere; may be repeated."),
    ] = None,
    witness: Annotated[
        list[Path] | None,
        typer.Option(help="The key of a witness whose cosignature you want; may be repeated."),
    ] = None,
) -> None:
    """Verify an evidence bundle offline; exit 0 only for one that nobody has touched."""
    from limbeck.ledger.encoding import to_time
    from limbeck.ledger.note import parse_key
    from limbeck.ledger.verify import verify_account

    shown = verify_account(
        bundle,
        public_key=None if public_key is None else parse_key(_read(public_key)),
        known=[_read(path) for path in known or ()],
        witnesses=[parse_key(_read(path)) for path in witness or ()],
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in shown.kinds.items())
    rows = [
        ("account", shown.account),
        ("records", f"{len(shown.records)} ({kinds})"),
        ("first", to_time(shown.records[0].time)),
        ("last", to_time(shown.records[-1].time)),
        ("complete", f"up to {to_time(shown.until)}, the ledger then had {shown.size} records"),
        ("checkpoints", f"{shown.checkpoints}, each going on from the one before"),
        ("key", str(shown.key)),
    ]
    rows += [("known", f"goes on from {shown.known} checkpoints that you gave")] * bool(shown.known)
    rows += [(f"witness {n}", f"saw it at {to_time(s * 1000)}") for n, s in shown.witnessed.items()]
    _print("VERIFIED", rows)
    if not shown.pinned:
        _note("the key came with the bundle: compare it with the operator's, or give --public-key")


@ledger_app.command("keygen")
def keygen(
    name: Annotated[str, typer.Argument(help="The ledger's name, such as example.org/guard.")],
    keys: KeyFolder,
) -> None:
    """Make a ledger's keys; the files are for their owner only, public.txt is for everyone."""
    from limbeck.ledger.keys import PUBLIC, create_keys

    made = create_keys(keys, name)
    typer.echo(f"keys are in {keys}; hand out {keys / PUBLIC}: {made.signer.public}")


@ledger_app.command("info")
def info(
    log: LogFile,
    audit: Annotated[
        bool, typer.Option("--audit", help="Read every record and check all of the log.")
    ] = False,
) -> None:
    """Say what a ledger holds; a gateway may be writing to it."""
    from limbeck.ledger.checkpoint import verify_checkpoint
    from limbeck.ledger.encoding import to_time
    from limbeck.ledger.reading import read_log

    with read_log(log) as reading:
        key, note = reading.public_key(), reading.last_checkpoint()
        rows = [
            ("key", str(key)),
            ("records", str(reading.size())),
            ("accounts", str(reading.accounts())),
            ("pins", str(len(reading.pins()))),
        ]
        if note is not None:
            last = verify_checkpoint(note, key)
            rows.append(("signed", f"{last.size} records at {to_time(last.time)}"))
        if audit:
            from limbeck.ledger.audit import audit_log

            checked = audit_log(reading)
            rows.append(
                ("audit", f"sound: {checked.records} records, {checked.checkpoints} checkpoints")
            )
    _print("LEDGER", rows)


@ledger_app.command("checkpoint")
def checkpoint(
    log: LogFile,
    since: Annotated[
        Path | None,
        typer.Option(help="An earlier checkpoint: check that this one goes on from it."),
    ] = None,
) -> None:
    """Print the newest checkpoint, to publish or to send to a witness."""
    from limbeck.ledger.checkpoint import verify_checkpoint
    from limbeck.ledger.reading import read_log

    with read_log(log) as reading:
        note = reading.last_checkpoint()
        if note is None:
            raise LedgerError(f"{log} has no checkpoint yet: nothing was recorded")
        if since is not None:
            old = verify_checkpoint(_read(since), reading.public_key())
            if reading.size() < old.size or reading.frontier(old.size).root() != old.root:
                raise LedgerError(f"{log} does not go on from the checkpoint in {since}: a fork")
    typer.echo(note, nl=False)


@ledger_app.command("export")
def export(
    log: LogFile,
    account: Annotated[str, typer.Argument(help="The account, as the gateway calls it.")],
    out: Annotated[Path, typer.Option(help="The bundle: a path ending in .zip, or a folder.")],
    keys: KeyFolder,
    policy: Annotated[Path | None, typer.Option(help="The policy file to put in.")] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Put in raw texts still kept.")] = False,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="A checkpoint that the reader has; may be repeated."),
    ] = None,
) -> None:
    """Write what the ledger holds of one account as a bundle that anybody can verify."""
    from limbeck.ledger.bundle import export_account
    from limbeck.ledger.encoding import to_time
    from limbeck.ledger.keys import read_keys
    from limbeck.ledger.reading import read_log

    held = read_keys(keys)
    _pin_if_free(log, held)
    with read_log(log) as reading:
        if reading.public_key() != held.signer.public:
            raise LedgerError(f"{keys} are not the keys of {log}")
        made = export_account(
            reading,
            held,
            account,
            out,
            policy=None if policy is None else _read(policy),
            texts=texts,
            known=[_read(path) for path in known or ()],
        )
    typer.echo(f"{out}: {made.records} records, complete up to {to_time(made.until)}")
    if made.later:
        _note(f"{made.later} newer records of the ledger wait for the running gateway's next pin")


@ledger_app.command("purge")
def purge(log: LogFile, keys: KeyFolder) -> None:
    """Remove raw texts whose retention is over; the records and every proof stay valid."""
    from limbeck.ledger.keys import read_keys
    from limbeck.ledger.log import open_log
    from limbeck.ledger.tables import connect_to_read

    connect_to_read(log).close()  # a mistyped path must not become an empty ledger
    with open_log(log, read_keys(keys)) as writer:
        typer.echo(f"{writer.purge()} raw texts removed from {log}")


def _pin_if_free(log: Path, keys: "Keys") -> None:
    """Pin the heads, unless a gateway holds the log; it does so itself at intervals."""
    from limbeck.ledger.log import LedgerBusyError, open_log
    from limbeck.ledger.tables import connect_to_read

    connect_to_read(log).close()  # a mistyped path must not become an empty ledger
    try:
        with open_log(log, keys) as writer:
            writer.pin()
    except LedgerBusyError:
        return


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LedgerError(f"{path} is not text") from error


def _print(title: str, rows: list[tuple[str, str]]) -> None:
    """Print facts one a line; what a stranger wrote cannot move the cursor."""
    typer.echo(title)
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
        typer.echo(f"{name:<{width}}{shown}")


def _note(text: str) -> None:
    typer.echo(f"limbeck: {text}", err=True)
