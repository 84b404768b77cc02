"""Declared uses: declared, approved by a person, withdrawn, read."""

from dataclasses import replace

import sqlalchemy as sa

from limbeck.errors import AccountError, NoSuchError
from limbeck.guard.account import ALL, DeclaredUse, UseKind
from limbeck.guard.state import records
from limbeck.guard.state.identifier import drawn, person
from limbeck.guard.state.register import account
from limbeck.guard.state.tables import declared_use as table
from limbeck.guard.state.writing import Writing


def declare_use(
    change: Writing,
    account_id: str,
    kind: UseKind,
    *,
    starts: float,
    expires: float,
    models: tuple[str, ...] = ALL,
    endpoints: tuple[str, ...] = ALL,
    volume: int | None = None,
    purpose: str = "",
) -> DeclaredUse:
    """Write down what an account says it will do. It covers nothing until a person approves it.

    Raises:
        AccountError: The account is unknown, the use ends before it starts, or covers nothing.
    """
    account(change.connection, account_id)
    if not change.now < expires or not starts < expires:
        raise AccountError("a declared use must expire after it starts, and in the future")
    if volume is not None and volume < 1:
        raise AccountError(f"a declared use's volume must be at least 1 request, got {volume}")
    if not models or not endpoints:
        raise AccountError("a declared use names models and endpoints, or * for all")
    made = DeclaredUse(
        drawn(), account_id, kind, starts, expires, models, endpoints, volume, purpose
    )
    change.connection.execute(sa.insert(table).values(records.use_row(made)))
    change.remember("use declared", account_id, detail={"use": made.id, "kind": kind.value})
    return made


def approve_use(change: Writing, id: str, by: str) -> DeclaredUse:
    """Let a use cover what it names, on a person's word.

    Raises:
        AccountError: The use is unknown, withdrawn, or approved already; or `by` names nobody.
    """
    known = use(change.connection, id)
    if known.withdrawn is not None:
        raise AccountError(f"declared use {id!r} is withdrawn: declare it again")
    if known.approved_by is not None:
        raise AccountError(f"declared use {id!r} is approved already, by {known.approved_by}")
    approved = replace(known, approved_by=person(by))
    _update(change, approved)
    change.remember("use approved", known.account, detail={"use": id, "approved_by": by})
    return approved


def withdraw_use(change: Writing, id: str) -> DeclaredUse:
    """Let a use cover nothing from now on."""
    withdrawn = replace(use(change.connection, id), withdrawn=change.now)
    _update(change, withdrawn)
    change.remember("use withdrawn", withdrawn.account, detail={"use": id})
    return withdrawn


def use(connection: sa.Connection, id: str) -> DeclaredUse:
    """Read a declared use.

    Raises:
        AccountError: There is none of that id.
    """
    row = connection.execute(sa.select(table).filter_by(id=id)).mappings().first()
    if row is None:
        raise NoSuchError(f"there is no declared use {id!r}: limbeck guard use list shows them")
    return records.use(row)


def uses(connection: sa.Connection, account_id: str | None = None) -> list[DeclaredUse]:
    """List declared uses, the last to expire first."""
    query = sa.select(table).order_by(table.c.expires.desc(), table.c.id)
    if account_id is not None:
        query = query.filter_by(account=account_id)
    return [records.use(row) for row in connection.execute(query).mappings()]


def _update(change: Writing, value: DeclaredUse) -> None:
    row = records.use_row(value)
    change.connection.execute(sa.update(table).filter_by(id=value.id).values(row))
    change.touch("use", value.account)
