"""Accounts: opened, moved to another plan, closed, read."""

from dataclasses import replace

import sqlalchemy as sa

from limbeck.errors import AccountError, NoSuchError
from limbeck.guard.account import Account, SubAccounts
from limbeck.guard.state import records
from limbeck.guard.state.identifier import chosen, drawn
from limbeck.guard.state.organisations import organisation
from limbeck.guard.state.plans import check_budgets, plan
from limbeck.guard.state.tables import account as table
from limbeck.guard.state.writing import Writing


def open_account(
    change: Writing,
    *,
    org: str,
    plan_id: str,
    id: str | None = None,
    name: str = "",
    sub_accounts: SubAccounts | None = None,
) -> Account:
    """Open an account.

    Args:
        change: The open transaction.
        org: The organisation that owns it.
        plan_id: What it may do.
        id: Chosen by the operator, or drawn.
        name: As people call it.
        sub_accounts: For a reseller: how the users behind it are named and budgeted.

    Raises:
        AccountError: The organisation or plan is unknown, or the id is malformed or taken.
    """
    organisation(change.connection, org)
    plan(change.connection, plan_id)
    if sub_accounts is not None:
        check_budgets(sub_accounts.budgets)
    made = Account(
        chosen("an account's id", id or drawn()), org, plan_id, change.now, name, None, sub_accounts
    )
    if find_account(change.connection, made.id) is not None:
        raise AccountError(f"there is an account {made.id!r} already")
    change.connection.execute(sa.insert(table).values(records.account_row(made)))
    change.touch("account", made.id)
    change.remember("account opened", made.id, detail={"org": org, "plan": plan_id})
    return made


def move_account(change: Writing, id: str, plan_id: str) -> Account:
    """Give an account another plan."""
    plan(change.connection, plan_id)
    moved = replace(account(change.connection, id), plan=plan_id)
    _update(change, moved)
    change.remember("plan changed", id, detail={"plan": plan_id})
    return moved


def close_account(change: Writing, id: str) -> Account:
    """Close an account: its keys open nothing any more."""
    closed = replace(account(change.connection, id), closed=change.now)
    _update(change, closed)
    change.remember("account closed", id)
    return closed


def account(connection: sa.Connection, id: str) -> Account:
    """Read an account.

    Raises:
        AccountError: There is none of that id.
    """
    found = find_account(connection, id)
    if found is None:
        raise NoSuchError(f"there is no account {id!r}: limbeck guard account list shows them")
    return found


def find_account(connection: sa.Connection, id: str) -> Account | None:
    """Read an account, if it is there."""
    row = connection.execute(sa.select(table).filter_by(id=id)).mappings().first()
    return None if row is None else records.account(row)


def accounts(
    connection: sa.Connection,
    *,
    org: str | None = None,
    prefix: str = "",
    after: str = "",
    limit: int | None = None,
) -> list[Account]:
    """List accounts by id, from the one after `after`; those whose id begins with a prefix."""
    query = sa.select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
    if org is not None:
        query = query.filter_by(org=org)
    if prefix:
        query = query.where(table.c.id.startswith(prefix, autoescape=True))
    return [records.account(row) for row in connection.execute(query).mappings()]


def _update(change: Writing, value: Account) -> None:
    row = records.account_row(value)
    change.connection.execute(sa.update(table).filter_by(id=value.id).values(row))
    change.touch("account", value.id)
