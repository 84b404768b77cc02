"""The figures for reading: honest classes worst first, campaigns, the copier's prices, the control."""

from collections.abc import Sequence
from statistics import median

from detectors.adaptive import pareto
from detectors.limbeck_watch import ACCUSED, SHIPPED
from detectors.race import Trace
from detectors.threshold import Accusations, accusations, worst_first
from rich.table import Table
from traffic.campaigns import MIXES, SIZES

from evaluation.fold import FoldResult
from evaluation.plan import BUDGETS, TARGET, Entry


def tables(found: Sequence[FoldResult]) -> list[Table]:
    """Return all tables."""
    return [
        operating(found),
        by_family(found),
        detection(found),
        grid(found, BUDGETS[0]),
        tactics(found),
        variations(found),
        adaptive(found),
        controls(found),
    ]


def operating(found: Sequence[FoldResult]) -> Table:
    """Return false accusations at the shipped operating point, both directions together."""
    shown = Table(
        title="Operating point: shipped policy, families not fitted on; false accusations, the worst class first"
    )
    for heading in ("class", "accounts", "accused", "rate", "95% upper bound"):
        shown.add_column(heading, justify="left" if heading == "class" else "right")
    for one in honest(found):
        shown.add_row(
            one.kind, str(one.accounts), str(one.accused), f"{one.rate:.2%}", f"{one.upper:.2%}"
        )
    return shown


def honest(found: Sequence[FoldResult]) -> list[Accusations]:
    """Return the honest classes of both directions at the operating point, the worst first."""
    counts: dict[str, list[int]] = {}
    for result in found:
        for one in accusations(result.peak[SHIPPED], result.kind, ACCUSED):
            held = counts.setdefault(one.kind, [0, 0])
            held[0] += one.accounts
            held[1] += one.accused
    return worst_first([Accusations(kind, total, hit) for kind, (total, hit) in counts.items()])


def by_family(found: Sequence[FoldResult]) -> Table:
    """Return the highest log e-value of honest accounts, by family: where a threshold would bite."""
    shown = Table(
        title="Honest families: accounts above a log e-value of 0, 3, 4.6 (1/alpha = 100) and 6.9 (1,000); highest"
    )
    for heading in ("family", "accounts", "> 0", "> 3", "> 4.6", "> 6.9", "highest"):
        shown.add_column(heading, justify="left" if heading == "family" else "right")
    rows: list[tuple[float, tuple[str, ...]]] = []
    for result in found:
        families: dict[str, list[float]] = {}
        for account, score in result.peak["limbeck"].items():
            families.setdefault(result.family[account], []).append(score)
        for family, scores in families.items():
            over = [str(sum(score > level for score in scores)) for level in (0, 3, 4.6, 6.9)]
            rows.append((-max(scores), (family, str(len(scores)), *over, f"{max(scores):.1f}")))
    for _, row in sorted(rows):
        shown.add_row(*row)
    return shown


def detection(found: Sequence[FoldResult]) -> Table:
    """Return what each detector catches within each budget."""
    title = f"Campaigns of {TARGET[0]} accounts at {TARGET[1]:.0%} mix: caught, and requests of all accounts until then (median of all)"
    shown = Table(title=title)
    shown.add_column("detector")
    for budget in BUDGETS:
        shown.add_column(f"caught at {budget:.1%}", justify="right")
        shown.add_column("requests", justify="right")
    shown.add_column("all campaigns, at 1%", justify="right")
    for name in found[0].peak:
        row = [name]
        for budget in BUDGETS:
            queries = caught(found, name, budget, "target")
            row += [f"{sum(q is not None for q in queries)} of {len(queries)}", middle(queries)]
        every = caught(found, name, BUDGETS[1], "")
        shown.add_row(*row, f"{sum(q is not None for q in every) / len(every):.0%}")
    return shown


def caught(
    found: Sequence[FoldResult], detector: str, budget: float, cell: str
) -> list[int | None]:
    """Return the requests to detection of every campaign whose cell begins so; None where it was never caught."""
    return [
        trace.caught(detector, result.above[detector][budget])
        for result in found
        for entry, trace in result.traces
        if entry.cell.startswith(cell)
    ]


def middle(queries: Sequence[int | None]) -> str:
    """Return the median, which exists while more than half were caught."""
    value = median_of(queries)
    return "never" if value is None else f"{value:.0f}"


def median_of(queries: Sequence[int | None]) -> float | None:
    """Return the median with never as infinity, None where it is that."""
    value = median(float("inf") if q is None else q for q in queries)
    return None if value == float("inf") else value


def grid(found: Sequence[FoldResult], budget: float) -> Table:
    """Return what Limbeck catches by number of accounts and mix."""
    shown = Table(
        title=f"Limbeck at {budget:.1%}: campaigns caught, median requests to detection; by accounts and mix"
    )
    shown.add_column("accounts", justify="right")
    for mix in MIXES:
        shown.add_column(f"{mix:.0%}", justify="right")
    for size in SIZES:
        row = [f"{size:,}"]
        for mix in MIXES:
            queries = [
                q
                for r in found
                for e, t in r.traces
                if e.cell == f"grid/{size}x{mix:g}"
                for q in [t.caught("limbeck", r.above["limbeck"][budget])]
            ]
            row.append(
                f"{sum(q is not None for q in queries)}/{len(queries)}, {middle(queries)}"
                if queries
                else ""
            )
        shown.add_row(*row)
    return shown


def tactics(found: Sequence[FoldResult]) -> Table:
    """Return what Limbeck catches by the copiers' tactic."""
    shown = Table(
        title="Limbeck by tactic, all campaigns: caught at each budget, at the operating point 1/alpha"
    )
    shown.add_column("tactic")
    for heading in (*(f"{b:.1%}" for b in BUDGETS), "operating point", "campaigns"):
        shown.add_column(heading, justify="right")
    groups: dict[str, list[tuple[FoldResult, Entry, Trace]]] = {}
    for result in found:
        for entry, trace in result.traces:
            groups.setdefault(entry.campaign.family, []).append((result, entry, trace))
    for family, rows in sorted(groups.items()):
        shares = [
            sum(t.caught("limbeck", r.above["limbeck"][b]) is not None for r, _, t in rows)
            / len(rows)
            for b in BUDGETS
        ]
        shares.append(sum(t.caught(SHIPPED, ACCUSED) is not None for r, _, t in rows) / len(rows))
        shown.add_row(family, *(f"{share:.0%}" for share in shares), str(len(rows)))
    return shown


def variations(found: Sequence[FoldResult]) -> Table:
    """Return what disguise, pace and cut links do."""
    shown = Table(
        title=f"Limbeck at {BUDGETS[0]:.1%}: variations of the campaign of {TARGET[0]} accounts at {TARGET[1]:.0%} mix"
    )
    for heading in ("variation", "caught", "requests"):
        shown.add_column(heading, justify="left" if heading == "variation" else "right")
    cells = dict.fromkeys(
        e.cell for r in found for e, _ in r.traces if e.cell.startswith("variation/")
    )
    for cell in cells:
        queries = caught(found, "limbeck", BUDGETS[0], cell)
        shown.add_row(
            cell.partition("/")[2],
            f"{sum(q is not None for q in queries)} of {len(queries)}",
            middle(queries),
        )
    return shown


def adaptive(found: Sequence[FoldResult]) -> Table:
    """Return the white-box copier's best trades against Limbeck's operating point."""
    shown = Table(
        title="White-box copier: strategies that no other beats (price of an undefended copier: 1 and 1)"
    )
    for heading in (
        "judged",
        "strategy",
        "log e-value",
        "requests an answer",
        "identities",
        "factor",
    ):
        shown.add_column(heading, justify="left" if heading == "strategy" else "right")
    for result in found:
        for price in pareto(result.prices[SHIPPED]):
            shown.add_row(
                result.fold, price.strategy.label, f"{price.evidence:.1f}", f"{price.per_answer:.1f}",
                f"{price.identities:.1f}" if price.caught else "1 (never caught)", f"{price.factor:.1f}",
            )  # fmt: skip
    return shown


def controls(found: Sequence[FoldResult]) -> Table:
    """Return the artefact control."""
    shown = Table(
        title="Artefact control: texts of both sides paraphrased and normalised; campaigns caught, median requests"
    )
    shown.add_column("detector")
    for budget in BUDGETS:
        shown.add_column(f"at {budget:.1%}", justify="right")
    for name in found[0].control.queries:
        row = [name]
        for budget in BUDGETS:
            queries = [q for result in found for q in result.control.queries[name][budget]]
            row.append(
                f"{sum(q is not None for q in queries)} of {len(queries)}, {middle(queries)}"
            )
        shown.add_row(*row)
    return shown
