"""Admin keys: who may use the admin API and the console, by name and role."""

import hmac
from dataclasses import dataclass, replace
from enum import StrEnum

import sqlalchemy as sa

from limbeck.errors import AccountError, NoSuchError
from limbeck.guard.secret import Pepper
from limbeck.guard.state.identifier import person
from limbeck.guard.state.keys import draw_secret, key_id
from limbeck.guard.state.tables import admin_key as table
from limbeck.guard.state.writing import Writing

PREFIX = "la-"  # as long as an API key's, so that both are taken apart alike


class Role(StrEnum):
    """READ looks; OPERATE also makes accounts and keys; SIGN also decides about sanctions, uses and appeals."""

    READ = "read"
    OPERATE = "operate"
    SIGN = "sign"


_RANK = {Role.READ: 0, Role.OPERATE: 1, Role.SIGN: 2}


@dataclass(frozen=True, slots=True)
class Admin:
    """A person with an admin key. What is done with it is done in `name`'s name."""

    id: str
    name: str
    role: Role
    created: float
    expires: float | None = None
    revoked: float | None = None

    def may(self, role: Role) -> bool:
        """Tell whether the role suffices."""
        return _RANK[self.role] >= _RANK[role]

    def opens(self, now: float) -> bool:
        """Tell whether the key is good at a time."""
        return (self.revoked is None or now < self.revoked) and (
            self.expires is None or now < self.expires
        )


def create_admin(
    change: Writing, pepper: Pepper, name: str, role: Role, *, expires: float | None = None
) -> tuple[Admin, str]:
    """Make an admin key for a person; return it with its only showing.

    Raises:
        AccountError: The name is no person's, or the key would have expired already.
    """
    if expires is not None and expires <= change.now:
        raise AccountError("a key must expire in the future")
    id, text = draw_secret(PREFIX)
    made = Admin(id, person(name), role, change.now, expires)
    row = {field: getattr(made, field) for field in Admin.__slots__}
    digest = pepper.key(text)
    change.connection.execute(
        sa.insert(table).values({**row, "role": role.value, "digest": digest})
    )
    change.remember("admin key created", detail={"key": id, "name": made.name, "role": role.value})
    return made, text


def revoke_admin(change: Writing, id: str) -> Admin:
    """Make an admin key open nothing any more, and end its sessions in the console.

    Raises:
        AccountError: There is none of that id.
    """
    known = admin(change.connection, id)
    if known is None:
        raise NoSuchError(f"there is no admin key {id!r}: limbeck guard admin list shows them")
    change.connection.execute(sa.update(table).filter_by(id=id).values(revoked=change.now))
    change.remember("admin key revoked", detail={"key": id})
    return replace(known, revoked=change.now)


def authenticate_admin(
    connection: sa.Connection, pepper: Pepper, text: str, now: float
) -> Admin | None:
    """Return whose admin key this is, or None if it opens nothing."""
    if not text.startswith(PREFIX):
        return None
    row = connection.execute(sa.select(table).filter_by(id=key_id(text))).mappings().first()
    if row is None or not hmac.compare_digest(pepper.key(text), bytes(row["digest"])):
        return None
    found = _admin(row)
    return found if found.opens(now) else None


def admin(connection: sa.Connection, id: str) -> Admin | None:
    """Read an admin, if there is one of that id."""
    row = connection.execute(sa.select(table).filter_by(id=id)).mappings().first()
    return None if row is None else _admin(row)


def admins(connection: sa.Connection) -> list[Admin]:
    """List the admins, oldest first."""
    query = sa.select(table).order_by(table.c.created, table.c.id)
    return [_admin(row) for row in connection.execute(query).mappings()]


def _admin(row: sa.RowMapping) -> Admin:
    times = {name: row[name] for name in ("created", "expires", "revoked")}
    return Admin(row["id"], row["name"], Role(row["role"]), **times)
