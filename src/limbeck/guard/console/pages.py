"""What each page shows, read from the state; how times, amounts and reasons are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import sqlalchemy as sa

from limbeck.guard import sanction
from limbeck.guard.account import Appeal, Budget, DeclaredUse, Standing
from limbeck.guard.admin.ledger import LedgerRecord, LedgerView
from limbeck.guard.decision import Action
from limbeck.guard.plain import moment, plain
from limbeck.guard.state import appeals, dossier, register, rules, standings, uses
from limbeck.guard.state.dossier import Dossier, Spent
from limbeck.guard.state.leases import LeaseStore
from limbeck.guard.window import span

LISTED = 200
_RECORDS = 100
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an account's timeline."""

    ts: float
    what: str
    by: str
    user: str
    detail: Mapping[str, Any]
    ledger: int | None = None


@dataclass(frozen=True, slots=True)
class Gauge:
    """How much of a budget is spent in the window that is now."""

    budget: Budget
    charged: int
    leased: int

    @property
    def share(self) -> float:
        """What is charged of the limit, from 0 to 1."""
        return min(self.charged / self.budget.limit, 1.0) if self.budget.limit else 1.0


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for a person."""

    sign_offs: Sequence[Standing]
    appeals: Sequence[Appeal]
    uses: Sequence[DeclaredUse]

    @property
    def size(self) -> int:
        """How many things wait."""
        return len(self.sign_offs) + len(self.appeals) + len(self.uses)


def environment() -> jinja2.Environment:
    """Return the templates, escaping everything, with the ways in which the console writes things."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"when": when, "iso": moment, "odds": odds, "action": action, "amount": amount}
    return made


def queue(connection: sa.Connection, now: float) -> Queue:
    """Gather what waits for a person: signatures, appeals, declared uses."""
    declared = [
        use
        for use in uses.uses(connection)
        if use.approved_by is None and use.withdrawn is None and now < use.expires
    ]
    open_appeals = appeals.appeals(connection, only_open=True)
    return Queue(standings.waiting(connection), open_appeals, declared)


def overview(connection: sa.Connection, search: str) -> dict[str, Any]:
    """Return accounts by evidence, and those whose id begins with a search."""
    found = register.accounts(connection, prefix=search, limit=20) if search else []
    return {
        "standings": standings.standings(connection, limit=LISTED),
        "search": search,
        "found": found,
        "rules": rules.sanction_rules(connection),
    }


def account_page(
    connection: sa.Connection, store: LeaseStore, ledger: LedgerView | None, id: str, now: float
) -> dict[str, Any]:
    """Return everything about one account."""
    known = dossier.dossier(connection, store, id)
    records = ledger.of_account(id, _RECORDS) if ledger is not None else []
    return {
        "dossier": known,
        "timeline": timeline(known, records),
        "gauges": gauges(known.plan.budgets, known.spent, now),
        "in_force": known.standing.at(now),
        "waits": sanction.waits(known.standing),
        "blocked": [entry for entry in known.blocks if entry.holds(now)],
        "now": now,
    }


def timeline(known: Dossier, records: Sequence[LedgerRecord]) -> list[Entry]:
    """Return what was done to an account and what the ledger holds about it, newest first."""
    done = [Entry(e.ts, e.what, e.by, e.user, e.detail) for e in known.events]
    recorded = [
        Entry(r.ts, f"ledger: {r.kind}", "", "", {**plain(r.content), "hash": r.hash}, r.seq)
        for r in records
    ]
    return sorted([*done, *recorded], key=lambda entry: entry.ts, reverse=True)


def gauges(budgets: Sequence[Budget], spent: Sequence[Spent], now: float) -> list[Gauge]:
    """Return each budget with what is spent of it in the window that is now."""
    known = {(s.measure, s.window, s.begins): s for s in spent}
    found: list[Gauge] = []
    for budget in budgets:
        begins = moment(span(budget.window, now)[0])
        current = known.get((budget.measure, budget.window, begins))
        charged, leased = (current.charged, current.leased) if current else (0, 0)
        found.append(Gauge(budget, charged, leased))
    return found


def when(seconds: float) -> str:
    """Write a time."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def odds(e_value: float) -> str:
    """Write an e-value as what it is: how many times likelier under copying than under the best honest rival."""
    return f"{e_value:,.0f}" if e_value >= 100 else f"{e_value:.3g}"


def action(value: Action | str) -> str:
    """Write a rung of the ladder."""
    return (value.name if isinstance(value, Action) else value).lower()


def amount(value: float) -> str:
    """Write a whole number with its thousands apart."""
    return f"{value:,.0f}"
