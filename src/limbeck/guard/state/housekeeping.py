"""What time does to the state by itself: appeals lapse, old changes are forgotten."""

import sqlalchemy as sa

from limbeck.guard.account import Appeal
from limbeck.guard.state import tables
from limbeck.guard.state.appeals import appeals, lapse_overdue
from limbeck.guard.state.database import Database
from limbeck.guard.state.mirror import KEPT_EPOCHS
from limbeck.guard.state.rules import sanction_rules
from limbeck.guard.state.writing import writing

CLOCK = "clock"
"""In whose name time acts."""


def lapse_appeals(database: Database, now: float) -> list[Appeal]:
    """Close the appeals that nobody decided in time; the sanctions fall as the rules say.

    Raises:
        StateError: The database cannot be reached.
    """
    with database.read() as connection:
        if not any(a.overdue(now) for a in appeals(connection, only_open=True)):
            return []
    with writing(database, by=CLOCK, now=now) as change:
        return lapse_overdue(change, sanction_rules(change.connection))


def forget_changes(database: Database) -> None:
    """Forget which records old epochs changed; a mirror that is so far behind reads all of them.

    Raises:
        StateError: The database cannot be reached.
    """
    newest = sa.select(tables.epoch.c.n).scalar_subquery()
    old = sa.delete(tables.change).where(tables.change.c.epoch < newest - KEPT_EPOCHS)
    with database.write() as connection:
        connection.execute(old)
