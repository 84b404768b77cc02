"""Everything that the state holds about one account, in one place."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from limbeck.guard.account import (
    Account,
    Appeal,
    BlockEntry,
    DeclaredUse,
    Key,
    Measure,
    Organisation,
    Plan,
    Standing,
    Window,
)
from limbeck.guard.compose import concerns
from limbeck.guard.plain import moment
from limbeck.guard.state.appeals import appeals
from limbeck.guard.state.blocks import blocks
from limbeck.guard.state.keys import keys
from limbeck.guard.state.leases import LeaseStore
from limbeck.guard.state.organisations import organisation
from limbeck.guard.state.plans import plan
from limbeck.guard.state.register import account
from limbeck.guard.state.standings import standing, standings
from limbeck.guard.state.timeline import Event, timeline
from limbeck.guard.state.uses import uses

_EVENTS = 200


@dataclass(frozen=True, slots=True)
class Spent:
    """What was charged of one budget in one window; `leased` is out with workers beside it."""

    measure: Measure
    window: Window
    begins: str
    charged: int
    leased: int


@dataclass(frozen=True, slots=True)
class Dossier:
    """An account with all that belongs to it. `users` are the standings of users behind a reseller."""

    account: Account
    org: Organisation
    plan: Plan
    standing: Standing
    blocks: Sequence[BlockEntry]
    users: Sequence[Standing]
    keys: Sequence[Key]
    uses: Sequence[DeclaredUse]
    appeals: Sequence[Appeal]
    spent: Sequence[Spent]
    events: Sequence[Event]


def dossier(connection: sa.Connection, store: LeaseStore | None, id: str) -> Dossier:
    """Gather what is known of an account; what it spent is left out where no store is given.

    Raises:
        AccountError: There is none of that id.
        StateError: The counters cannot be reached.
    """
    owner = account(connection, id)
    org = organisation(connection, owner.org)
    return Dossier(
        owner,
        org,
        plan(connection, owner.plan),
        standing(connection, id),
        [entry for entry in blocks(connection) if concerns(entry, org)],
        [s for s in standings(connection, account_id=id) if s.user],
        keys(connection, id),
        uses(connection, id),
        appeals(connection, id),
        [] if store is None else _spent(store, id),
        timeline(connection, id, limit=_EVENTS),
    )


def _spent(store: LeaseStore, id: str) -> list[Spent]:
    return [
        Spent(meter.measure, meter.window, moment(meter.starts), charged, leased)
        for meter, (charged, leased) in store.spent(id).items()
    ]
