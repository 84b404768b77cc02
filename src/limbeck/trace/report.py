"""The report of an audit: figures as JSON, tables for the terminal, and one HTML page whose first part a lay reader follows.

Everything is computed from the audit; a sentence that a figure does not support cannot be written here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from limbeck.figures import percent, shown
from limbeck.stats.coins import BETS, threshold
from limbeck.trace.audit import Audit
from limbeck.trace.likeness import Finding, Rate, counted, shown_rate
from limbeck.trace.many import Discoveries
from limbeck.trace.sealing import Sealed
from limbeck.trace.text_only import KeyTest
from limbeck.trace.verdict import LIMITS, NOT_SHOWN, Verdict, odds, propositions

FORMAT = "limbeck.trace/1"
Figures = Mapping[str, Any]
LIVE = (
    "These coins were tossed while the gateway served. Whoever held the key knew each bit as soon as both answers were "
    "there and could have drawn again until it suited, so the verdict holds for an owner who did not, and convinces "
    "nobody who doubts that."
)
"""Stands beside every verdict from coins of a gateway."""
HEADLINES = {
    "distilled": "Trained on these answers",
    "not shown": "Not shown",
    "undecided": "Undecided",
}


@dataclass(frozen=True, slots=True)
class Models:
    """Who was compared, with what tells them apart from others of the same name."""

    suspect: str
    suspect_identity: str
    references: Mapping[str, str]
    """Name to identity."""


def figures(
    done: Audit,
    sealed: Sealed,
    models: Models,
    *,
    created: datetime,
    accounts: Sequence[str] = (),
    discoveries: Discoveries | None = None,
    supporting: Sequence[Finding] = (),
) -> dict[str, Any]:
    """Return the report of an audit by log-likelihoods as JSON values."""
    teacher = str(sealed.committed.teacher.get("name", "the teacher"))
    return {
        **_head(done.verdict, sealed, models, created=created, accounts=accounts),
        "e_value": capped(done.log_e),
        "log_e_value": done.log_e,
        "peak_log_e_value": max(done.path),
        "coins_used": len(done.items),
        "coins_at_hand": done.at_hand,
        "crossing": done.crossing,
        "agreement": done.agreement.as_dict(),
        "statistic": {
            "name": "mixture e-process over sealed coins",
            "weights": done.weights,
            "bets": list(BETS),
            "stopping": "any time; stops at 1/alpha",
        },
        "propositions": list(propositions(models.suspect, teacher)),
        "path": [round(value, 4) for value in done.path],
        "items": [{**asdict(item), "d": d} for item, d in zip(done.items, done.d, strict=True)],
        "accounts": None if discoveries is None else _accounts(discoveries),
        "supporting": [_finding(one) for one in supporting],
    }


def text_figures(
    tests: Sequence[tuple[KeyTest, float]],
    verdict: Verdict,
    sealed: Sealed,
    models: Models,
    *,
    coins: int,
    created: datetime,
    accounts: Sequence[str] = (),
    supporting: Sequence[Finding] = (),
) -> dict[str, Any]:
    """Return the report of an audit by text alone as JSON values."""
    teacher = str(sealed.committed.teacher.get("name", "the teacher"))
    return {
        **_head(verdict, sealed, models, created=created, accounts=accounts),
        "e_value": capped(verdict.log_e),
        "log_e_value": verdict.log_e,
        "coins_used": coins,
        "coins_at_hand": coins,
        "statistic": {"name": "choices of text against counterfactual keys"},
        "propositions": list(propositions(models.suspect, teacher)),
        "features": [asdict(test) | {"adjusted_p_value": p} for test, p in tests],
        "accounts": None,
        "supporting": [_finding(one) for one in supporting],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return asdict(finding) | {"measured": [asdict(one) for one in finding.measured]}


def capped(log_e: float) -> float:
    """Return exp(log_e) as a number that JSON can hold."""
    return math.exp(min(log_e, 700.0))


def _head(
    verdict: Verdict,
    sealed: Sealed,
    models: Models,
    *,
    created: datetime,
    accounts: Sequence[str],
) -> dict[str, Any]:
    committed, beacon = sealed.committed, sealed.beacon
    return {
        "format": FORMAT,
        "created": created.astimezone(UTC).isoformat(),
        "verdict": verdict.finding,
        "alpha": verdict.alpha,
        "strength": verdict.strength,
        "because": verdict.because,
        "more_coins": verdict.more_coins,
        "suspect": {"name": models.suspect, "identity": models.suspect_identity},
        "references": [{"name": n, "identity": i} for n, i in models.references.items()],
        "teacher": dict(committed.teacher),
        "audited_accounts": list(accounts),
        "coins": {
            "root": sealed.root,
            "signed_by": str(sealed.public_key),
            "committed_at": committed.created.isoformat(),
            "beacon": beacon.value or None,
            "beacon_time": None if beacon.time is None else beacon.time.isoformat(),
            "bits_checked": sealed.key is not None,
            "skipped": dict(committed.skipped),
        },
        "warnings": list(_warnings(sealed, verdict)),
        "limits": list(LIMITS),
    }


def _warnings(sealed: Sealed, verdict: Verdict) -> Iterator[str]:
    beacon = sealed.beacon
    if sealed.committed.teacher.get("live"):
        yield LIVE
    if not beacon.value:
        yield (
            "No public beacon went into the coins, so an outsider must trust that the key was not chosen to fit; seal "
            "with --beacon to make that checkable."
        )
    elif beacon.time is None:
        yield "The beacon's time was not stated, so nobody can check that the key was committed to before it was public."
    if sealed.key is None:
        yield "The coins' key is not here, so the bits were taken from the file; its signature was checked."
    if verdict.finding == "not shown":
        yield NOT_SHOWN


def _accounts(found: Discoveries) -> dict[str, Any]:
    return {
        "alpha": found.alpha,
        "method": "e-BH",
        "needed_alone": found.needed,
        "tested": [asdict(discovery) for discovery in found.tested],
        "found": list(found.found),
    }


# Tables


def tables(report: Figures) -> Iterator[RenderableType]:
    """Yield what the terminal shows."""
    yield Text(f"{HEADLINES[report['verdict']]}  (alpha {report['alpha']:g})", style="bold")
    yield Text(f"{report['because'][0].upper()}{report['because'][1:]}.")
    yield _facts(report)
    if report.get("features"):
        yield _features(report["features"])
    if report["accounts"]:
        yield _account_table(report["accounts"])
    if report["supporting"]:
        yield _supporting(report["supporting"])
    for warning in report["warnings"]:
        yield Text(f"! {warning}")


def facts(report: Figures) -> list[tuple[str, str]]:
    """Return the figures of an audit as label and value."""
    found = [
        ("suspect", report["suspect"]["name"]),
        ("reference", ", ".join(r["name"] for r in report["references"]) or "none"),
        ("coins used", f"{report['coins_used']} of {report['coins_at_hand']}"),
        (
            "e-value",
            odds(report["log_e_value"])
            if report["log_e_value"] > 5
            else f"{report['e_value']:.3g}",
        ),
        ("needed", odds(threshold(report["alpha"]))),
    ]
    limit, peak = threshold(report["alpha"]), report.get("peak_log_e_value")
    if peak is not None and report["log_e_value"] < limit <= peak:
        found.append(("largest e-value on the way, which decides", odds(peak)))
    if agreement := report.get("agreement"):
        found.append(
            ("leans to what was served", percent(agreement["value"], agreement["interval"]))
        )
    if report["more_coins"]:
        found.append(("further coins that would decide", f"about {report['more_coins']:,}"))
    return found


def _facts(report: Figures) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for label, value in facts(report):
        table.add_row(label, value)
    return table


def _features(rows: Sequence[Figures]) -> Table:
    table = Table("choice", "coins", "T", "p", "p, corrected", box=box.SIMPLE, pad_edge=False)
    for row in rows:
        table.add_row(
            row["feature"],
            str(row["coins"]),
            f"{row['statistic']:.2f}",
            f"{row['p_value']:.4g}",
            f"{row['adjusted_p_value']:.4g}",
        )
    return table


def _account_table(found: Figures) -> Table:
    title = f"accounts, false discovery rate {found['alpha']:g} (e-BH)"
    table = Table("account", "e-value", "found", title=title, box=box.SIMPLE, pad_edge=False)
    for row in found["tested"]:
        table.add_row(
            row["name"] or "(none)", f"{row['e_value']:.3g}", "yes" if row["found"] else ""
        )
    return table


def _supporting(rows: Sequence[Figures]) -> Table:
    title = "supporting evidence, no part of the verdict"
    heads = ("what", "found", "what it can mean", "as alike")
    table = Table(*heads, title=title, box=box.SIMPLE, pad_edge=False)
    for row in rows:
        told = "\n".join(
            f"{rate['among']}: {shown_rate(Rate(**rate))}" for rate in row.get("measured", ())
        )
        table.add_row(row["name"], row["value"], row["means"], told or row["error_rate"])
    return table


# HTML


def render_html(report: Figures) -> str:
    """Return the report as one HTML page that loads nothing and runs no script; it prints well."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # heavy; only pages need it

    templates = Environment(
        loader=PackageLoader("limbeck.trace"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    return templates.get_template("report.html.j2").render(
        r=report,
        headline=HEADLINES[report["verdict"]],
        css=report["verdict"].replace(" ", "_"),
        facts=facts(report),
        one_of=odds(threshold(report["alpha"])),
        odds=odds(report["log_e_value"]),
        drawing=path_drawing(report["path"], report["alpha"]) if report.get("path") else "",
        percent=percent,
        drawer=[
            dict(row)
            | {"rates": [(rate, shown_rate(Rate(**rate))) for rate in row.get("measured", ())]}
            for row in report["supporting"]
        ],
        counted=counted(),
    )


_WIDTH, _HEIGHT, _LEFT, _TOP, _FOOT = 720.0, 260.0, 64.0, 16.0, 34.0


def path_drawing(path: Sequence[float], alpha: float) -> str:
    """Return the e-value after each coin as SVG, on a logarithmic scale, with the threshold."""
    limit = threshold(alpha)
    low = min(0.0, *path) / math.log(10)
    high = max(limit, *path) / math.log(10) * 1.08

    def x(coin: float) -> float:
        return _LEFT + coin / len(path) * (_WIDTH - _LEFT - 16)

    def y(value: float) -> float:
        return _TOP + (high - value / math.log(10)) / (high - low) * (_HEIGHT - _TOP - _FOOT)

    points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate([0.0, *path]))
    step = max(1, math.ceil((high - low) / 6))
    ticks = range(math.ceil(low / step) * step, math.floor(high) + 1, step)
    parts = [
        f'<svg role="img" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" aria-labelledby="path-title">',
        '<title id="path-title">E-value after each coin, logarithmic, with the threshold</title>',
        *(
            f'<text class="axis" x="{_LEFT - 10:g}" y="{y(t * math.log(10)) + 4:.1f}">{_power(t)}</text>'
            f'<line class="tick" x1="{_LEFT:g}" x2="{_WIDTH - 16:g}" y1="{y(t * math.log(10)):.1f}" y2="{y(t * math.log(10)):.1f}"/>'
            for t in ticks
        ),
        f'<line class="limit" x1="{_LEFT:g}" x2="{_WIDTH - 16:g}" y1="{y(limit):.1f}" y2="{y(limit):.1f}"/>',
        f'<text class="limit" x="{_LEFT + 6:g}" y="{y(limit) - 6:.1f}">threshold {odds(limit)}</text>',
        f'<polyline class="path" points="{points}"/>',
        f'<text class="coins" x="{_WIDTH - 16:g}" y="{_HEIGHT - 10:g}">{len(path)} coins</text>',
        "</svg>",
    ]
    return "".join(parts)


def _power(exponent: int) -> str:
    return f"{10**exponent:,}" if 0 <= exponent <= 4 else f"10^{exponent}".replace("-", "−")
