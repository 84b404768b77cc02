"""`limbeck trace register|bundle|verify`: fix an audit before its coins are tossed, hand it on, check one that was handed on."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.errors import TraceError

if TYPE_CHECKING:
    from limbeck.trace.registration import Named
    from limbeck.trace.verify import Run, Traced

CoinFolder = Annotated[Path, typer.Option(help="The coins' folder.")]
LedgerFile = Annotated[
    Path | None, typer.Option(help="The owner's ledger. [default: ledger.db in the coins' folder]")
]
KeyFolder = Annotated[
    Path | None, typer.Option(help="The ledger's keys. [default: keys in the coins' folder]")
]


def register(app: typer.Typer) -> None:
    """Add these commands to `limbeck trace`."""
    app.command("register")(register_plan)
    app.command("bundle")(bundle)
    app.command("verify")(verify)


def register_plan(
    coins: CoinFolder,
    beacon_source: Annotated[
        str,
        typer.Option(help="Who will publish the beacon, such as 'drand quicknet round 1234'."),
    ],
    beacon_at: Annotated[
        str, typer.Option(metavar="TIME", help="When, such as 2026-11-24T15:00:00Z; still to come.")
    ],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            help="A model that saw neither answer; may be repeated. [default: the coins' teacher]"
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Chance of any false accusation, over all that will be tried.")
    ] = 1e-3,
    weights: Annotated[
        str, typer.Option(help="How references are weighed: fitted, or one.")
    ] = "fitted",
    suspects: Annotated[int, typer.Option(min=1, help="How many suspects may be tried.")] = 1,
    candidate: Annotated[
        list[str] | None, typer.Option(help="A suspect, where it is known; may be repeated.")
    ] = None,
    by_account: Annotated[
        bool, typer.Option("--by-account", help="Each account may be audited by itself too.")
    ] = False,
    ledger: LedgerFile = None,
    keys: KeyFolder = None,
) -> None:
    """Fix how coins will be audited, after `seal --commit` and before their beacon is public."""
    from limbeck.ledger.keys import read_keys
    from limbeck.ledger.log import open_log
    from limbeck.trace.bundle import REGISTRATION, Plan
    from limbeck.trace.bundle import register as register_coins
    from limbeck.trace.registration import weights_of

    plan = Plan(
        references=_references(coins, reference or ()),
        beacon_source=beacon_source,
        beacon_at=_moment(beacon_at),
        alpha=alpha,
        weights=weights_of(weights),
        suspects=suspects,
        by_account=by_account,
        candidates=tuple(candidate or ()),
    )
    held = read_keys(keys or coins / "keys")
    with open_log(ledger or coins / "ledger.db", held) as log:
        made = register_coins(coins, plan, log, held)
    typer.echo(f"registered in {coins / REGISTRATION}; have it stamped or witnessed, then wait")
    typer.echo(f"then: limbeck trace seal --out {coins} --beacon {beacon_at}=VALUE")
    typer.echo(
        f"and:  limbeck trace audit --coins {coins} --alpha {made.alpha_each!r} --out REPORT …"
    )


def bundle(
    coins: CoinFolder,
    report: Annotated[
        list[Path],
        typer.Option(help="A folder that `trace audit --out` wrote; repeat it for every run."),
    ],
    out: Annotated[Path, typer.Option(help="The bundle: a path ending in .zip, or a folder.")],
    timestamp: Annotated[
        Path | None, typer.Option(help="An RFC 3161 response over registration.note.")
    ] = None,
    opentimestamps: Annotated[
        Path | None, typer.Option(help="An OpenTimestamps proof over registration.note.")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="A checkpoint of the ledger that the reader has; may be repeated."),
    ] = None,
    ledger: LedgerFile = None,
    keys: KeyFolder = None,
) -> None:
    """Number the runs of a registered audit in the ledger, and write everything as a bundle."""
    from limbeck.ledger.keys import read_keys
    from limbeck.ledger.log import open_log
    from limbeck.trace.bundle import export_trace

    held = read_keys(keys or coins / "keys")
    with open_log(ledger or coins / "ledger.db", held) as log:
        made = export_trace(
            coins,
            report,
            log,
            held,
            out,
            timestamp=timestamp,
            opentimestamps=opentimestamps,
            known=[path.read_text(encoding="utf-8") for path in known or ()],
        )
    typer.echo(f"{made.path}: {made.runs} of at most {made.registration.tests} registered runs")


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle: a zip or a folder.")],
    public_key: Annotated[
        Path | None, typer.Option(help="The owner's public key, got from elsewhere.")
    ] = None,
    beacon: Annotated[
        str | None, typer.Option(help="The beacon's value, looked up at its source.")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="A checkpoint of the owner's ledger that you have; may be repeated."),
    ] = None,
    timestamp_roots: Annotated[
        Path | None,
        typer.Option(help="PEM certificates of time-stamping authorities that you trust."),
    ] = None,
    witness: Annotated[
        Path | None,
        typer.Option(help="The key of a witness that saw the ledger before the beacon."),
    ] = None,
    pages: Annotated[
        Path | None,
        typer.Option(help="Write the report of each run here, from the figures that came out."),
    ] = None,
    most_alpha: Annotated[
        float, typer.Option(help="What all registrations of the ledger may add up to.")
    ] = 0.05,
) -> None:
    """Verify a trace bundle offline, without its models; exit 0 only for a sound one."""
    from limbeck.ledger.note import parse_key
    from limbeck.trace.verify import verify_trace

    shown = verify_trace(
        bundle,
        public_key=None
        if public_key is None
        else parse_key(public_key.read_text(encoding="utf-8")),
        beacon=beacon,
        known=[path.read_text(encoding="utf-8") for path in known or ()],
        timestamp_roots=timestamp_roots,
        witness=None if witness is None else parse_key(witness.read_text(encoding="utf-8")),
        most_alpha=most_alpha,
    )
    if pages is not None:
        _write_pages(shown, bundle, pages)
    for line in _lines(shown):
        typer.echo("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


def _write_pages(shown: "Traced", bundle: Path, folder: Path) -> None:
    """Render the runs' reports anew: a page inside a bundle is whatever its maker wrote."""
    from limbeck.artefact import write_text
    from limbeck.extras import need
    from limbeck.ledger.container import read_container

    need("writing pages", "trace", "jinja2")
    from limbeck.trace.report import render_html
    from limbeck.trace.restate import restated

    files = read_container(bundle)
    for run in shown.runs:
        report = restated(json.loads(files[f"run-{run.number}.json"]), run, shown.registration)
        write_text(folder / f"run-{run.number}.html", render_html(report))


def _lines(shown: "Traced") -> list[str]:
    from limbeck.ledger.encoding import to_time

    plan = shown.registration
    seen = "" if shown.seen_at is None else f", seen by others at {shown.seen_at.isoformat()}"
    return [
        "VERIFIED: the evidence is as it was registered and nothing is missing",
        *(_run(run, plan.alpha_each) for run in shown.runs),
        f"registered   {to_time(shown.recorded_at)}{seen}",
        f"beacon       {shown.beacon}, {plan.beacon_source}, {to_time(plan.beacon_at)}",
        f"coins        {plan.coins} of {plan.accounts} accounts, all accounted for",
        f"references   {', '.join(f'{r.name} ({r.identity})' for r in plan.references) or 'none'}",
        f"level        {plan.alpha:g} over {plan.tests} tests, {plan.alpha_each:g} each",
        f"ledger       {shown.other_registrations} other registrations; all levels add up to {shown.all_alpha:g}",
        f"key          {shown.key}",
        "It rests on:",
        *(f"  - {sentence}" for sentence in shown.rests_on),
    ]


def _run(run: "Run", alpha: float) -> str:
    from limbeck.trace.verdict import odds

    whose = f", account {', '.join(run.accounts)}" if run.accounts else ""
    word = "distilled" if run.distilled else "not shown, which is not the same as not distilled"
    crossed = f", reached after {run.crossing} coins" if run.distilled else ""
    return (
        f"run {run.number}        {run.suspect}{whose}: {word}; e = {odds(run.log_e)} of {1 / alpha:,.0f} needed"
        f"{crossed}, {run.coins} of {run.at_hand} coins used"
    )


def _references(coins: Path, named: "list[str] | tuple[str, ...]") -> "tuple[Named, ...]":
    """Name each reference by its weights' hash; the coins' own teacher has its in the commitment."""
    from limbeck.trace.bundle import teacher_of
    from limbeck.trace.registration import Named

    teacher = teacher_of(coins)
    found = [teacher] if not named and teacher is not None else []
    for name in named:
        if teacher is not None and name == teacher.name:
            found.append(teacher)
            continue
        from limbeck.tracing import open_weigher

        model = open_weigher(name, Path.cwd(), "float32")
        found.append(Named(model.name, model.identity))
    return tuple(found)


def _moment(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise TraceError(
            f"--beacon-at must be like 2026-11-24T15:00:00Z, with its zone, got {text!r}"
        )
    return round(time.astimezone(UTC).timestamp() * 1000)
