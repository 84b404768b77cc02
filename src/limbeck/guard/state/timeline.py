"""The timeline: what was done to an account, when and by whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from limbeck.guard.state.tables import event as table


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was done. `detail` depends on `what`."""

    seq: int
    ts: float
    account: str
    user: str
    what: str
    by: str
    detail: Mapping[str, Any]


def timeline(
    connection: sa.Connection, account_id: str | None = None, *, limit: int | None = None
) -> list[Event]:
    """List what was done, newest first; of one account, or of everything."""
    query = sa.select(table).order_by(table.c.seq.desc()).limit(limit)
    if account_id is not None:
        query = query.filter_by(account=account_id)
    return [
        Event(**{name: row[name] for name in Event.__slots__})
        for row in connection.execute(query).mappings()
    ]
