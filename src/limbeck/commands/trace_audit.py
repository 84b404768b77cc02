"""`limbeck trace seal`, `limbeck trace audit` and `limbeck trace siblings`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from limbeck.errors import TraceError


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    app.command("seal")(seal)
    app.command("audit")(audit)
    app.command("siblings")(siblings)


def seal(
    prompts: Annotated[
        Path | None,
        typer.Argument(help="JSONL with prompt and perhaps account, or text, one prompt a line."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The coins' folder.")] = Path("coins"),
    teacher: Annotated[
        str | None, typer.Option(help="A model folder, a run's folder, hf:… or packaged:…")
    ] = None,
    beacon: Annotated[
        str | None,
        typer.Option(
            metavar="[TIME=]VALUE",
            help="A public value published after the commitment; TIME such as 2026-11-24T15:00:00Z.",
        ),
    ] = None,
    commit_only: Annotated[
        bool,
        typer.Option(
            "--commit", help="Commit to answers and key and stop; seal later, with the beacon."
        ),
    ] = False,
    keys: Annotated[
        Path | None, typer.Option(help="A ledger's keys. [default: fresh ones in OUT/keys]")
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0.01, max=5.0, help="Answers are drawn at this.")
    ] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    seed: Annotated[int, typer.Option(help="Seeds the answers, never the bits.")] = 0,
) -> None:
    """Draw two answers to every prompt, commit to them, and toss sealed coins for which one is served."""
    from limbeck.terminal import TerminalProgress
    from limbeck.workbench import commit_coins, seal_coins

    with TerminalProgress(Console(stderr=True)) as progress:
        if prompts is not None:
            if teacher is None:
                raise TraceError("sealing draws answers from a teacher; name it with --teacher")
            commit_coins(
                prompts,
                teacher=teacher,
                out=out,
                keys=keys,
                temperature=temperature,
                max_new_tokens=max_new_tokens,
                seed=seed,
                progress=progress,
            )
        elif commit_only:
            raise TraceError("--commit needs a file of prompts")
    if commit_only:
        typer.echo(
            f"committed to; when a later beacon is known: limbeck trace seal --out {out} --beacon TIME=VALUE"
        )
        return
    value, time = parse_beacon(beacon)
    made = seal_coins(out, beacon=value, beacon_time=time, keys=keys)
    typer.echo(f"{len(made.coins)} coins in {out / 'coins.jsonl'}, root {made.root}")


def parse_beacon(text: str | None) -> tuple[str | None, datetime | None]:
    """Read `VALUE` or `TIME=VALUE`; a time without a zone is refused.

    Raises:
        TraceError: What stands before the first equals sign begins like a date and is no time with a zone.
    """
    if text is None:
        return None, None
    stated, equals, value = text.partition("=")
    if not equals or not stated[:4].isdigit() or "-" not in stated:
        return text, None
    try:
        time = datetime.fromisoformat(stated)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise TraceError(
            f"a beacon's time must be like 2026-11-24T15:00:00Z, with its zone, got {stated!r}"
        )
    return value, time.astimezone(UTC)


def audit(
    coins: Annotated[Path, typer.Option(help="A folder of coins.")],
    suspect: Annotated[
        str,
        typer.Option(help="A model folder, a run's folder, hf:…, packaged:… or openai:NAME@URL."),
    ],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            help="A model that saw neither answer; may be repeated. [default: the teacher, where it is here]"
        ),
    ] = None,
    account: Annotated[
        list[str] | None, typer.Option(help="Coins of this account alone; may be repeated.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Chance of a false accusation, fixed before the audit.")
    ] = 1e-3,
    weights: Annotated[
        str, typer.Option(help="How references are weighed: fitted, or one.")
    ] = "fitted",
    by_account: Annotated[
        bool, typer.Option("--by-account", help="Also say which account leaked, by e-BH.")
    ] = False,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Use the suspect's text alone, by other keys.")
    ] = False,
    kinship: Annotated[
        bool,
        typer.Option(
            "--kinship",
            help="Add supporting evidence, no part of the verdict: tokenizer, shape, weights, activations.",
        ),
    ] = False,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODEL",
            help="Another candidate teacher: the suspect's text is compared with the teacher's beside it. "
            "No part of the verdict; may be repeated.",
        ),
    ] = None,
    most: Annotated[int | None, typer.Option(min=1, help="Coins at the most.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16, for local models.")] = "float32",
    out: Annotated[
        Path | None, typer.Option(help="Write report.json and report.html here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say whether a suspect was trained on what the coins served, with the chance of a false accusation."""
    from limbeck.terminal import TerminalProgress
    from limbeck.workbench import trace, trace_tables

    with TerminalProgress(Console(stderr=True)) as progress:
        report = trace(
            coins=coins,
            suspect=suspect,
            references=reference or (),
            accounts=account or (),
            alpha=alpha,
            weights=_weights(weights),
            by_account=by_account,
            text_only=text_only,
            kinship=kinship,
            candidates=candidate or (),
            most=most,
            dtype=dtype,
            out=out,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(report))
        return
    console = Console()
    for part in trace_tables(report):
        console.print(part)
    if out is not None:
        console.print(f"report   {out / 'report.html'}", markup=False, highlight=False)


def siblings(
    contexts: Annotated[
        Path, typer.Argument(help="Text, one context a line: all are used, so fix them beforehand.")
    ],
    suspect: Annotated[
        str, typer.Option(help="A model folder, a run's folder, hf:… or packaged:…")
    ],
    teacher: Annotated[str, typer.Option(help="The same.")],
    before: Annotated[str, typer.Option(help="The teacher before its last training phase.")],
    sibling: Annotated[
        list[str], typer.Option(help="A re-run of that phase with a fresh seed; repeat it.")
    ],
    alpha: Annotated[
        float, typer.Option(help="Chance of a false accusation, fixed before the test.")
    ] = 0.01,
    candidates: Annotated[int, typer.Option(min=2, help="Next tokens a context.")] = 32,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Rank a teacher among its siblings: finds students of its probabilities, which coins miss."""
    from limbeck.terminal import TerminalProgress
    from limbeck.workbench import trace_siblings

    with TerminalProgress(Console(stderr=True)) as progress:
        found = trace_siblings(
            contexts=contexts,
            suspect=suspect,
            teacher=teacher,
            before=before,
            siblings=sibling,
            alpha=alpha,
            candidates=candidates,
            dtype=dtype,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(
        f"{found['verdict']}: rank {found['rank']} of {found['siblings'] + 1} at {found['contexts']} contexts, "
        f"p = {found['p_value']:.3g} (alpha {alpha:g}), e = {found['e_value']:.3g}"
    )


def _weights(text: str) -> Literal["fitted", "one"]:
    match text:
        case "fitted":
            return "fitted"
        case "one":
            return "one"
        case _:
            raise TraceError(f"--weights must be fitted or one, got {text}")
