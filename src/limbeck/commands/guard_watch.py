"""`limbeck guard replay | score | fit`, and `limbeck guard suite build`: the watch over logs."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from limbeck.errors import GuardError
from limbeck.extras import need

if TYPE_CHECKING:
    from limbeck.guard.decision import Action
    from limbeck.guard.score import Score

SECRET = "LIMBECK_GUARD_SECRET"  # noqa: S105 (the name of the variable, not its value)

Log = Annotated[Path, typer.Argument(help="A traffic log; docs/traffic-format.md.")]
Seed = Annotated[int, typer.Option(help=f"Keys the hashes where {SECRET} is not set.")]
OfGuard = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        help="A guard's folder: its secret, and its policy where none is given. What is made for a guard that runs must be made so.",
    ),
]
Truths = Annotated[Path, typer.Option("--truth", help="CSV: account,class,campaign,family.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `limbeck guard`."""
    app.command("replay")(replay)
    app.command("score")(score)
    app.command("fit")(fit)
    suites = typer.Typer(help="Sketches of known test suites.", no_args_is_help=True)
    suites.command("build")(build)
    app.add_typer(suites, name="suite")


def secret_of(seed: int, guard: Path | None = None) -> bytes:
    """Return the key of all hashes: that of a guard's folder, else the environment's, or one that a seed makes.

    Raises:
        LedgerError: The folder's keys are missing, or others can read them.
    """
    if guard is not None:
        from limbeck.guard.config import load_config
        from limbeck.guard.places import Places
        from limbeck.ledger.keys import read_keys

        places = Places(guard / "guard.toml")
        return read_keys(places.ledger(load_config(places.config)).parent).secret
    return os.environ.get(SECRET, f"seed {seed}").encode()


def replay(
    log: Log,
    out: Annotated[Path, typer.Option(help="Decisions, one a line.")],
    policy: Annotated[
        Path | None, typer.Option(help="A policy in TOML. [default: the shipped one]")
    ] = None,
    seed: Seed = 0,
    folder: OfGuard = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Count unreadable lines and go on.")
    ] = False,
) -> None:
    """Run the gateway's watch over a log and write its decisions."""
    need("limbeck guard replay", "guard", "orjson", "scipy")
    from limbeck.guard.policy import DEFAULT
    from limbeck.guard.replay import replay as run
    from limbeck.guard.watch import Watch

    if policy is None and folder is not None:
        policy = _policy_of(folder)
    watch = Watch.open(policy or DEFAULT, secret=secret_of(seed, folder))
    done = run(log, watch, out, skip_unreadable=skip_unreadable)
    console = Console(highlight=False)
    console.print(done.intake.summary())
    console.print(", ".join(f"{name} {n}" for name, n in done.actions.most_common()))


def score(
    log: Log,
    decisions: Annotated[Path, typer.Argument(help="What replay wrote.")],
    truth: Truths,
    accused_from: Annotated[
        str, typer.Option(help="The mildest action that counts as an accusation.")
    ] = "challenge",
) -> None:
    """Print who was accused, by class, and how soon each campaign was; the last line is JSON."""
    need("limbeck guard score", "guard", "orjson", "scipy")
    from limbeck.guard.decision import Action
    from limbeck.guard.score import read_decisions, read_truth, tally
    from limbeck.guard.traffic import read_log

    if accused_from.upper() not in Action.__members__:
        known = ", ".join(action.name.lower() for action in Action)
        raise GuardError(f"--accused-from must be one of {known}, got {accused_from!r}")
    asked = (observation.account for observation in read_log(log, skip_unreadable=True))
    found = tally(
        _in_step(asked, read_decisions(decisions)),
        read_truth(truth),
        accused_from=Action[accused_from.upper()],
    )
    console = Console(highlight=False)
    console.print(_classes(found))
    if found.campaigns:
        console.print(_campaigns(found))
    typer.echo(json.dumps(found.as_json()))


def fit(
    log: Log,
    truth: Truths,
    out: Annotated[Path, typer.Option(help="The calibration, which a policy names.")],
    alpha: Annotated[
        float, typer.Option(help="False accusations at the most, in every honest class.")
    ] = 0.001,
    rival: Annotated[
        list[str] | None,
        typer.Option(
            help="An honest class to beat by name; repeatable. [default: chat, pipeline, benchmark, agent]"
        ),
    ] = None,
    suite: Annotated[
        list[Path] | None, typer.Option(help="A sketch that the policy names too; repeatable.")
    ] = None,
    seed: Seed = 0,
    folder: OfGuard = None,
) -> None:
    """Learn what evidence is weighed with, and check the promise on families that were held out."""
    need("limbeck guard fit", "guard", "orjson", "scipy")
    from limbeck.guard.evidence.calibration import save
    from limbeck.guard.fit import RIVALS, Plan
    from limbeck.guard.fit import fit as run
    from limbeck.guard.signals.suite import load
    from limbeck.guard.sketch import Sketcher

    if not 0 < alpha < 0.5:
        raise GuardError(f"--alpha must lie between 0 and 0.5, got {alpha:g}")
    secret = secret_of(seed, folder)
    sketches = [load(path, Sketcher(secret)) for path in suite or ()]
    plan = Plan(alpha=alpha, rivals=tuple(rival or RIVALS), seed=seed)
    found = run(log, truth, plan, secret=secret, suites=sketches)
    digest = save(found, out)
    console = Console(highlight=False)
    for table in _fitted(found.report):
        console.print(table)
    families = found.report["families"]
    console.print(
        f"alpha = {alpha:g} per account and {found.horizon} requests, for accounts like those of the log. Over families that "
        f"nobody has seen, {families} families can promise no less than {1 / (families + 1):.3f}; the margin is what was "
        "needed for those held out."
    )
    console.print(f"{out} sha256 {digest}", soft_wrap=True)


def build(
    files: Annotated[
        list[Path], typer.Argument(help="JSON lines, CSV, or a text with one item a line.")
    ],
    out: Annotated[Path, typer.Option(help="The sketch; holds no text.")],
    name: Annotated[str | None, typer.Option(help="[default: the first file's name]")] = None,
    field: Annotated[
        str | None,
        typer.Option(help="The field that holds an item. [default: text, question, prompt …]"),
    ] = None,
    seed: Seed = 0,
    folder: OfGuard = None,
) -> None:
    """Sketch the items of test suites that you have, so that runs of them are recognised."""
    need("limbeck guard suite build", "guard", "orjson", "scipy")
    from limbeck.guard.signals import suite as suites
    from limbeck.guard.sketch import Sketcher

    texts = (text for file in files for text in suites.read_items(file, field))
    made = suites.build(
        name or files[0].name.split(".")[0], texts, Sketcher(secret_of(seed, folder))
    )
    digest = suites.save(made, out)
    typer.echo(f"{out}: {made.items} items, {len(made.marks)} fingerprints, sha256 {digest}")


def _policy_of(folder: Path) -> Path | None:
    from limbeck.guard.config import load_config
    from limbeck.guard.places import Places

    places = Places(folder / "guard.toml")
    return places.policy(load_config(places.config))


def _fitted(report: Mapping[str, Any]) -> Iterator[Table]:
    rivals = Table(title="Honest rivals")
    for column in ("rival", "classes", "units", "smallest alpha"):
        rivals.add_column(column, justify="left" if column in {"rival", "classes"} else "right")
    for name, of in report["rivals"].items():
        rivals.add_row(
            name, ", ".join(of["classes"]), str(of["units"]), f"{of['smallest_alpha']:.4f}"
        )
    yield rivals
    held = Table(title="Families held out, before the margin that they ask for")
    for column in ("family", "accounts", "accused"):
        held.add_column(column, justify="left" if column == "family" else "right")
    for name, of in report["held_out"].items():
        held.add_row(name, str(of["accounts"]), str(of["accused_before_margin"]))
    yield held
    ways = Table(
        title="Ways of copying, after the margin (accounts of this log, which were learned from)"
    )
    for column in (
        "way",
        "accounts",
        "accused",
        "accused if unseen",
        "margin own",
        "margin shared",
    ):
        ways.add_column(column, justify="left" if column == "way" else "right")
    for name, of in report["ways"].items():
        counts = (of["accounts"], of["accused"], of["accused_unseen"])
        ways.add_row(
            name, *map(str, counts), f"{of['margin_own']:.2f}", f"{of['margin_shared']:.2f}"
        )
    yield ways


def _in_step(
    asked: Iterable[str], decided: Iterable[tuple[str, "Action"]]
) -> Iterator[tuple[str, "Action"]]:
    """Decisions, checked to be those on this log."""
    for number, (account, decision) in enumerate(zip_longest(asked, decided), 1):
        if decision is None or account != decision[0]:
            there = "nothing" if decision is None else repr(decision[0])
            raise GuardError(
                f"decisions line {number} is about {there}, the log's request {number} about {account!r}: "
                "they do not belong together"
            )
        yield decision


def _classes(found: "Score") -> Table:
    table = Table(title="Accused accounts, the worst honest class first (95% Clopper-Pearson)")
    for name in ("class", "family", "accounts", "accused", "rate", "upper bound"):
        table.add_column(name, justify="left" if name in {"class", "family"} else "right")
    for kind, of in found.classes.items():
        rate, bound = f"{of.rate:.4f}", f"{of.upper_bound:.4f}"
        table.add_row(kind, "all", str(of.accounts), str(of.accused), rate, bound)
        for family, (accused, accounts) in of.families.items():
            table.add_row("", family, str(accounts), str(accused), f"{accused / accounts:.4f}", "")
    return table


def _campaigns(found: "Score") -> Table:
    table = Table(title="Campaigns: requests over all accounts until the first accusation")
    for name in (
        "campaign",
        "family",
        "accounts",
        "accused",
        "requests",
        "to detection",
        "to half",
    ):
        table.add_column(name, justify="left" if name in {"campaign", "family"} else "right")
    for name, of in found.campaigns.items():
        first, half = (
            "never" if n is None else str(n) for n in (of.queries_to_detection, of.queries_to_half)
        )
        table.add_row(
            name, of.family, str(of.accounts), str(of.accused), str(of.requests), first, half
        )
    return table
