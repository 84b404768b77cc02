"""One change to the accounts: its transaction, its time, who made it, and what others must read again."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from limbeck.errors import AccountError
from limbeck.guard.state import tables
from limbeck.guard.state.database import Database


@dataclass(frozen=True, slots=True)
class Writing:
    """An open transaction of one person or program, `by`, at a time `now`."""

    connection: sa.Connection
    epoch: int
    now: float
    by: str

    def touch(self, kind: str, id: str) -> None:
        """Tell the mirrors to read something again once this is committed."""
        row = {"epoch": self.epoch, "kind": kind, "id": id}
        known = sa.select(tables.change.c.id).filter_by(**row)
        if self.connection.execute(known).first() is None:
            self.connection.execute(sa.insert(tables.change).values(row))

    def remember(
        self,
        what: str,
        account: str = "",
        *,
        user: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Write down what was done to whom; it is kept if and only if it is done."""
        self.connection.execute(
            sa.insert(tables.event).values(
                ts=self.now,
                account=account,
                user=user,
                what=what,
                by=self.by,
                detail=dict(detail or {}),
            )
        )


@contextmanager
def writing(database: Database, *, by: str, now: float) -> Generator[Writing]:
    """Open a change; it is committed when the block ends and undone when it raises.

    Changes wait for one another, so that a mirror that has read epoch n has missed nothing before it.

    Args:
        database: Where.
        by: A person's name, or the program's; it stands in the account's timeline.
        now: Seconds since 1970 UTC.

    Raises:
        AccountError: `by` is empty.
        StateError: The database cannot be reached.
    """
    if not by.strip():
        raise AccountError("a change needs the name of who makes it, got none")
    with database.write() as connection:
        raised = sa.update(tables.epoch).values(n=tables.epoch.c.n + 1).returning(tables.epoch.c.n)
        yield Writing(connection, connection.execute(raised).scalar_one(), now, by.strip())
