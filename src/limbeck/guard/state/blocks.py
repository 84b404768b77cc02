"""The block list: owners who are not served, whatever account or key they come with."""

from dataclasses import replace

import sqlalchemy as sa

from limbeck.errors import AccountError, NoSuchError
from limbeck.guard.account import BlockEntry, BlockKind
from limbeck.guard.state import records
from limbeck.guard.state.identifier import drawn, person
from limbeck.guard.state.organisations import domain, organisation
from limbeck.guard.state.tables import block_entry as table
from limbeck.guard.state.writing import Writing


def block(
    change: Writing,
    kind: BlockKind,
    value: str,
    *,
    by: str,
    clause: str = "",
    reason: str = "",
    expires: float | None = None,
) -> BlockEntry:
    """Put an owner on the list, on a person's word. It holds for accounts and keys made later, too.

    Args:
        change: The open transaction.
        kind: What `value` is.
        value: An organisation's id, the keyed hash of a payment fingerprint, or a domain.
        by: The person who answers for it.
        clause: The clause of the policy.
        reason: What the owner is told.
        expires: None holds until it is lifted.

    Raises:
        AccountError: The organisation is unknown, the owner is on the list already, or `by` names nobody.
    """
    if kind is BlockKind.ORG:
        organisation(change.connection, value)
    value = domain(value) if kind is BlockKind.DOMAIN else value
    if any(e.kind is kind and e.value == value for e in blocks_in_force(change)):
        raise AccountError(f"{kind} {value!r} is on the block list already")
    made = BlockEntry(drawn(), kind, value, change.now, person(by), clause, reason, expires)
    row = {name: getattr(made, name) for name in BlockEntry.__slots__}
    change.connection.execute(sa.insert(table).values({**row, "kind": kind.value}))
    change.touch("block", made.id)
    change.remember("owner blocked", detail={"block": made.id, "kind": kind.value, "value": value})
    return made


def lift(change: Writing, id: str, by: str) -> BlockEntry:
    """Take an owner off the list, on a person's word."""
    known = block_entry(change.connection, id)
    if known.lifted is not None:
        raise AccountError(f"block {id!r} is lifted already")
    person(by)
    change.connection.execute(sa.update(table).filter_by(id=id).values(lifted=change.now))
    change.touch("block", id)
    change.remember("block lifted", detail={"block": id, "lifted_by": by})
    return replace(known, lifted=change.now)


def block_entry(connection: sa.Connection, id: str) -> BlockEntry:
    """Read an entry.

    Raises:
        AccountError: There is none of that id.
    """
    row = connection.execute(sa.select(table).filter_by(id=id)).mappings().first()
    if row is None:
        raise NoSuchError(f"there is no block {id!r}: limbeck guard block list shows them")
    return records.block(row)


def blocks(connection: sa.Connection) -> list[BlockEntry]:
    """List the entries, lifted and expired ones too, newest first."""
    query = sa.select(table).order_by(table.c.since.desc(), table.c.id)
    return [records.block(row) for row in connection.execute(query).mappings()]


def blocks_in_force(change: Writing) -> list[BlockEntry]:
    """List the entries that hold now."""
    return [entry for entry in blocks(change.connection) if entry.holds(change.now)]
