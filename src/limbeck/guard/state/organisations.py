"""Organisations: made, changed, read."""

from collections.abc import Sequence

import sqlalchemy as sa

from limbeck.errors import AccountError, NoSuchError
from limbeck.guard.account import Organisation
from limbeck.guard.state import records
from limbeck.guard.state.identifier import chosen
from limbeck.guard.state.tables import organisation as table
from limbeck.guard.state.writing import Writing


def create_organisation(
    change: Writing,
    id: str,
    *,
    name: str = "",
    payment: Sequence[str] = (),
    domains: Sequence[str] = (),
) -> Organisation:
    """Make an organisation.

    Args:
        change: The open transaction.
        id: Chosen by the operator.
        name: As people call it.
        payment: Keyed hashes of payment fingerprints (`Pepper.payment`), never the fingerprints.
        domains: Domains that the operator has verified.

    Raises:
        AccountError: The id is malformed or taken, or a domain is malformed.
    """
    made = Organisation(
        chosen("an organisation's id", id),
        name or id,
        change.now,
        tuple(payment),
        tuple(domain(d) for d in domains),
    )
    if find_organisation(change.connection, id) is not None:
        raise AccountError(f"there is an organisation {id!r} already")
    change.connection.execute(
        sa.insert(table).values({name: getattr(made, name) for name in Organisation.__slots__})
    )
    change.touch("org", id)
    change.remember("org created", detail={"org": id})
    return made


def identify_organisation(
    change: Writing, id: str, *, payment: Sequence[str] = (), domains: Sequence[str] = ()
) -> Organisation:
    """Add marks by which an owner is known again."""
    known = organisation(change.connection, id)
    marks = {
        "payment": [*known.payment, *(p for p in payment if p not in known.payment)],
        "domains": [*known.domains, *(d for d in map(domain, domains) if d not in known.domains)],
    }
    change.connection.execute(sa.update(table).filter_by(id=id).values(marks))
    change.touch("org", id)
    change.remember("org identified", detail={"org": id})
    return organisation(change.connection, id)


def organisation(connection: sa.Connection, id: str) -> Organisation:
    """Read an organisation.

    Raises:
        AccountError: There is none of that id.
    """
    found = find_organisation(connection, id)
    if found is None:
        raise NoSuchError(f"there is no organisation {id!r}: limbeck guard org list shows them")
    return found


def find_organisation(connection: sa.Connection, id: str) -> Organisation | None:
    """Read an organisation, if it is there."""
    row = connection.execute(sa.select(table).filter_by(id=id)).mappings().first()
    return None if row is None else records.organisation(row)


def organisations(
    connection: sa.Connection, *, after: str = "", limit: int | None = None
) -> list[Organisation]:
    """List organisations by id, from the one after `after`."""
    query = sa.select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
    return [records.organisation(row) for row in connection.execute(query).mappings()]


def domain(text: str) -> str:
    """Return a domain in lower case, without the dot at its end.

    Raises:
        AccountError: It cannot be one.
    """
    name = text.strip().rstrip(".").lower()
    labels = name.split(".")
    if len(labels) < 2 or not all(part and part.replace("-", "").isalnum() for part in labels):
        raise AccountError(f"a domain looks like example.org, got {text!r}")
    return name
