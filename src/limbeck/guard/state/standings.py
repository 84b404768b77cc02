"""Standings: proposed by the policy, signed off by a person, restored by a person, read."""

from dataclasses import asdict, replace

import sqlalchemy as sa

from limbeck.errors import AccountError
from limbeck.guard import sanction
from limbeck.guard.account import Standing
from limbeck.guard.decision import Action
from limbeck.guard.sanction import Proposal, SanctionRules
from limbeck.guard.state import records
from limbeck.guard.state.identifier import MAX_USER, is_user, person
from limbeck.guard.state.register import account
from limbeck.guard.state.tables import standing as table
from limbeck.guard.state.writing import Writing


def propose(change: Writing, proposal: Proposal, rules: SanctionRules) -> Standing:
    """Take in what the policy asks for; what comes into force is `sanction.impose`'s to say.

    Raises:
        AccountError: The account is unknown, or a measure is proposed without the hash of its evidence.
    """
    if proposal.action is not Action.ALLOW and not proposal.evidence:
        raise AccountError(f"a measure against {proposal.account!r} needs recorded evidence")
    account(change.connection, proposal.account)
    before = standing(change.connection, proposal.account, proposal.user)
    after = sanction.impose(before, proposal, rules, change.now)
    if after != before:
        _write(change, after, "measure proposed")
    return after


def sign_off(change: Writing, account_id: str, by: str, *, user: str = "") -> Standing:
    """Put in force what is proposed, on a person's word.

    Raises:
        AccountError: Nothing is waiting, or `by` names nobody.
    """
    before = standing(change.connection, account_id, user)
    if not sanction.waits(before):
        raise AccountError(f"nothing waits for a signature for {_named(account_id, user)}")
    after = sanction.sign_off(before, person(by), change.now)
    _write(change, after, "measure signed off")
    return after


def restore(
    change: Writing, account_id: str, by: str, *, user: str = "", reason: str = ""
) -> Standing:
    """Lift every measure and proposal, on a person's word.

    Raises:
        AccountError: The account is unknown, or `by` names nobody. An entry of the block list is lifted there.
    """
    account(change.connection, account_id)
    before = standing(change.connection, account_id, user)
    after = sanction.restore(before, person(by), change.now)
    _write(change, after, "restored", reason)
    return after


def vouch(change: Writing, account_id: str, user: str, by: str) -> Standing:
    """Let a user behind a reseller be judged alone, on a person's word.

    Raises:
        AccountError: The account is no reseller, no user is named, or `by` names nobody.
    """
    if account(change.connection, account_id).sub_accounts is None:
        raise AccountError(f"account {account_id!r} is no reseller: it has no users of its own")
    if not user:
        raise AccountError("name the user behind the reseller to vouch for")
    after = replace(standing(change.connection, account_id, user), vouched_by=person(by))
    _write(change, after, "vouched for")
    return after


def standing(connection: sa.Connection, account_id: str, user: str = "") -> Standing:
    """Read a standing; good where nothing is written.

    Raises:
        AccountError: The user's name is too long, or cannot be printed.
    """
    if not is_user(user):
        raise AccountError(
            f"a user's name has at most {MAX_USER} characters, all printable, got {user[:20]!r}"
        )
    query = sa.select(table).filter_by(account=account_id, user=user)
    row = connection.execute(query).mappings().first()
    return Standing(account_id, user) if row is None else records.standing(row)


def standings(
    connection: sa.Connection, *, account_id: str | None = None, limit: int | None = None
) -> list[Standing]:
    """List standings, the strongest evidence first."""
    order = (table.c.e_value.desc(), table.c.since.desc(), table.c.account, table.c.user)
    query = sa.select(table).order_by(*order).limit(limit)
    if account_id is not None:
        query = query.filter_by(account=account_id)
    return [records.standing(row) for row in connection.execute(query).mappings()]


def waiting(connection: sa.Connection) -> list[Standing]:
    """List the standings that ask for a person's signature, the longest in waiting first."""
    query = sa.select(table).where(table.c.proposed > table.c.action).order_by(table.c.since)
    return [records.standing(row) for row in connection.execute(query).mappings()]


def _write(change: Writing, value: Standing, what: str, reason: str = "") -> None:
    where = {"account": value.account, "user": value.user}
    row = records.standing_row(value)
    changed = change.connection.execute(sa.update(table).filter_by(**where).values(row))
    if changed.rowcount == 0:
        change.connection.execute(sa.insert(table).values(row))
    change.touch("standing", value.account)
    detail = {
        "action": value.action.name,
        "proposed": value.proposed.name,
        "clause": value.clause,
        "evidence": value.evidence,
        "e_value": value.e_value,
        "because": [asdict(r) for r in value.because],
        "signed_off_by": value.signed_off_by,
        "reason": reason,
    }
    change.remember(what, value.account, user=value.user, detail=detail)


def write_lapsed(change: Writing, value: Standing) -> None:
    """Write the standing that an appeal without a decision leaves behind."""
    _write(change, value, "appeal lapsed")


def _named(account_id: str, user: str) -> str:
    return f"user {user!r} of account {account_id!r}" if user else f"account {account_id!r}"
