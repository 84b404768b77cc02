"""Appeals: filed, decided by a person, or lapsed because nobody did in time."""

from dataclasses import replace

import sqlalchemy as sa

from limbeck.errors import AccountError, NoSuchError
from limbeck.guard import sanction
from limbeck.guard.account import Appeal, AppealState
from limbeck.guard.sanction import SanctionRules
from limbeck.guard.state import records
from limbeck.guard.state.identifier import drawn, person
from limbeck.guard.state.register import account
from limbeck.guard.state.standings import restore, standing, write_lapsed
from limbeck.guard.state.tables import appeal as table
from limbeck.guard.state.writing import Writing

_HOUR_S = 3600.0
_MAX_TEXT = 10_000


def file_appeal(
    change: Writing, rules: SanctionRules, account_id: str, *, user: str = "", text: str = ""
) -> Appeal:
    """Take in an appeal and start its clock.

    Raises:
        AccountError: The account is unknown, an appeal is open already, or the text is too long.
    """
    account(change.connection, account_id)
    if len(text) > _MAX_TEXT:
        raise AccountError(f"an appeal has at most {_MAX_TEXT} characters, got {len(text)}")
    if any(a.user == user for a in appeals(change.connection, account_id, only_open=True)):
        raise AccountError(f"an appeal for {account_id!r} is open already")
    due = change.now + rules.appeal_hours * _HOUR_S
    made = Appeal(drawn(), account_id, change.now, due, user, text)
    row = {name: getattr(made, name) for name in Appeal.__slots__}
    change.connection.execute(sa.insert(table).values({**row, "state": made.state.value}))
    change.remember("appeal filed", account_id, user=user, detail={"appeal": made.id, "due": due})
    return made


def decide_appeal(change: Writing, id: str, *, uphold: bool, by: str, answer: str = "") -> Appeal:
    """Decide an appeal, on a person's word. Upheld, it restores the account.

    Raises:
        AccountError: The appeal is unknown or not open, or `by` names nobody.
    """
    known = appeal(change.connection, id)
    if known.state is not AppealState.OPEN:
        raise AccountError(f"appeal {id!r} is {known.state} already")
    decided = replace(
        known,
        state=AppealState.UPHELD if uphold else AppealState.REJECTED,
        decided=change.now,
        decided_by=person(by),
        answer=answer,
    )
    _close(change, decided)
    if uphold:
        restore(change, known.account, by, user=known.user, reason=f"appeal {id}")
    return decided


def lapse_overdue(change: Writing, rules: SanctionRules) -> list[Appeal]:
    """Close every appeal whose time ran out; its sanction falls as the rules say."""
    overdue = [a for a in appeals(change.connection, only_open=True) if a.overdue(change.now)]
    for known in overdue:
        _close(change, replace(known, state=AppealState.LAPSED, decided=change.now))
        before = standing(change.connection, known.account, known.user)
        after = sanction.lapse(before, rules, change.now)
        if after != before:
            write_lapsed(change, after)
    return overdue


def appeal(connection: sa.Connection, id: str) -> Appeal:
    """Read an appeal.

    Raises:
        AccountError: There is none of that id.
    """
    row = connection.execute(sa.select(table).filter_by(id=id)).mappings().first()
    if row is None:
        raise NoSuchError(f"there is no appeal {id!r}: limbeck guard appeal list shows them")
    return records.appeal(row)


def appeals(
    connection: sa.Connection, account_id: str | None = None, *, only_open: bool = False
) -> list[Appeal]:
    """List appeals, the next one due first."""
    query = sa.select(table).order_by(table.c.due, table.c.id)
    if account_id is not None:
        query = query.filter_by(account=account_id)
    if only_open:
        query = query.filter_by(state=AppealState.OPEN.value)
    return [records.appeal(row) for row in connection.execute(query).mappings()]


def _close(change: Writing, value: Appeal) -> None:
    change.connection.execute(
        sa.update(table)
        .filter_by(id=value.id)
        .values(
            state=value.state.value,
            decided=value.decided,
            decided_by=value.decided_by,
            answer=value.answer,
        )
    )
    detail = {"appeal": value.id, "state": value.state.value, "answer": value.answer}
    change.remember("appeal closed", value.account, user=value.user, detail=detail)
