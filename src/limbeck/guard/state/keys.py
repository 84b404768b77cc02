"""API keys: drawn, listed, rotated, revoked. A key is shown once; what is kept is its hash under the pepper."""

import secrets
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from limbeck.errors import AccountError, NoSuchError
from limbeck.guard.account import Key
from limbeck.guard.secret import Pepper
from limbeck.guard.state import records
from limbeck.guard.state.identifier import drawn
from limbeck.guard.state.register import account
from limbeck.guard.state.tables import api_key as table
from limbeck.guard.state.writing import Writing

PREFIX = "lk-"
ID_LENGTH = 10
_SECRET_BYTES = 32
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, and its only showing."""

    key: Key
    secret: str = field(repr=False)


def key_id(text: str) -> str:
    """Return the id inside a key: how it is looked up. Whatever is no key gives an id that nobody has."""
    return text[len(PREFIX) : len(PREFIX) + ID_LENGTH]


def draw_secret(prefix: str) -> tuple[str, str]:
    """Draw a key of 256 bits; return its id and the key."""
    id = drawn(ID_LENGTH)
    return id, f"{prefix}{id}-{secrets.token_urlsafe(_SECRET_BYTES)}"


def create_key(
    change: Writing,
    pepper: Pepper,
    account_id: str,
    *,
    label: str = "",
    expires: float | None = None,
    replaces: str | None = None,
) -> NewKey:
    """Make a key for an account.

    Raises:
        AccountError: The account is unknown or closed, or the key would have expired already.
    """
    owner = account(change.connection, account_id)
    if owner.closed is not None:
        raise AccountError(f"account {account_id!r} is closed: it gets no keys")
    if expires is not None and expires <= change.now:
        raise AccountError("a key must expire in the future")
    id, text = draw_secret(PREFIX)
    made = Key(
        id,
        account_id,
        change.now,
        pepper.key(text),
        label,
        expires,
        replaces=replaces,
    )
    row = {name: getattr(made, name) for name in Key.__slots__}
    change.connection.execute(sa.insert(table).values(row))
    change.touch("key", id)
    change.remember("key created", account_id, detail={"key": id, "label": label})
    return NewKey(made, text)


def rotate_key(
    change: Writing, pepper: Pepper, id: str, *, overlap_seconds: float = DAY_S
) -> NewKey:
    """Make a key that takes another's place; the old one opens for `overlap_seconds` more.

    Raises:
        AccountError: The key is unknown, or opens nothing any more.
    """
    old = _good(change, id)
    made = create_key(
        change, pepper, old.account, label=old.label, expires=old.expires, replaces=old.id
    )
    ends = change.now + overlap_seconds
    _update(change, replace(old, expires=ends if old.expires is None else min(ends, old.expires)))
    change.remember("key rotated", old.account, detail={"key": id, "by": made.key.id})
    return made


def revoke_key(change: Writing, id: str) -> Key:
    """Make a key open nothing any more. Every worker obeys within its refresh interval.

    Raises:
        AccountError: The key is unknown, or revoked already.
    """
    old = key(change.connection, id)
    if old.revoked is not None:
        raise AccountError(f"key {id!r} is revoked already")
    revoked = replace(old, revoked=change.now)
    _update(change, revoked)
    change.remember("key revoked", old.account, detail={"key": id})
    return revoked


def key(connection: sa.Connection, id: str) -> Key:
    """Read a key.

    Raises:
        AccountError: There is none of that id; a whole key pasted in place of its id is not repeated.
    """
    row = connection.execute(sa.select(table).filter_by(id=id)).mappings().first()
    if row is None:
        shown = repr(id) if len(id) <= ID_LENGTH + len(PREFIX) else "that"
        raise NoSuchError(f"there is no key {shown}: limbeck guard key list shows their ids")
    return records.key(row)


def keys(connection: sa.Connection, account_id: str | None = None) -> list[Key]:
    """List keys by account, oldest first."""
    query = sa.select(table).order_by(table.c.account, table.c.created, table.c.id)
    if account_id is not None:
        query = query.filter_by(account=account_id)
    return [records.key(row) for row in connection.execute(query).mappings()]


def _good(change: Writing, id: str) -> Key:
    old = key(change.connection, id)
    if not old.opens(change.now):
        raise AccountError(f"key {id!r} opens nothing any more: create a new one")
    return old


def _update(change: Writing, value: Key) -> None:
    row = {name: getattr(value, name) for name in Key.__slots__}
    change.connection.execute(sa.update(table).filter_by(id=value.id).values(row))
    change.touch("key", value.id)
