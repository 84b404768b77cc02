"""The mirror: everything about keys and accounts in a worker's memory, kept fresh by the database's numbered changes.

A lookup touches neither disk nor lock. One thread may refresh while others look up: records are replaced whole, and
holders that were put together from older ones are forgotten after the records have changed.
"""

import hmac
from collections import defaultdict
from collections.abc import Callable, Collection, Generator
from dataclasses import replace

import sqlalchemy as sa

from limbeck.guard.account import (
    Account,
    BlockEntry,
    DeclaredUse,
    Holder,
    Key,
    Organisation,
    Plan,
    Standing,
)
from limbeck.guard.compose import compose, for_user
from limbeck.guard.sanction import SanctionRules
from limbeck.guard.secret import Pepper
from limbeck.guard.state import records, tables
from limbeck.guard.state.blocks import blocks
from limbeck.guard.state.database import Database
from limbeck.guard.state.keys import ID_LENGTH, PREFIX
from limbeck.guard.state.rules import sanction_rules

KEPT_EPOCHS = 10_000
"""How many epochs of changes the database keeps; a mirror that is further behind reads everything again."""
_BATCH = 500
_Ids = Collection[str] | None
_MAX_USERS = 100_000
_ID = slice(len(PREFIX), len(PREFIX) + ID_LENGTH)


class Mirror:
    """Owns one process' copy of the accounts. It is empty until the first `refresh`."""

    def __init__(self, database: Database, pepper: Pepper) -> None:
        self._database = database
        self._digest = pepper.key
        self._keys: dict[str, Key] = {}
        self._accounts: dict[str, Account] = {}
        self._orgs: dict[str, Organisation] = {}
        self._plans: dict[str, Plan] = {}
        self._uses: dict[str, tuple[DeclaredUse, ...]] = {}
        self._standings: dict[str, dict[str, Standing]] = {}
        self._blocks: tuple[BlockEntry, ...] = ()
        self._holders: dict[str, Holder] = {}
        self._users: dict[tuple[str, str], Holder] = {}
        self.rules = SanctionRules()
        self.epoch = -1

    def find(self, text: str, now: float) -> Holder | None:
        """Return the holder of a key at a time, or None if it opens nothing."""
        key = self._keys.get(text[_ID])
        if key is None or not hmac.compare_digest(self._digest(text), key.digest):
            return None
        holder = self._holders.get(key.id)
        if holder is not None and holder.valid_from <= now < holder.valid_until:
            return holder
        return self._compose(key, now)

    def find_user(self, reseller: Holder, user: str, now: float) -> Holder:
        """Return the holder of one user behind a reseller."""
        users, name = self._users, (reseller.key, user)
        known = users.get(name)
        if (
            known is not None
            and known.reseller is reseller
            and known.valid_from <= now < known.valid_until
        ):
            return known
        own = self._standings.get(reseller.account.id, {}).get(user)
        holder = for_user(reseller, user, own or Standing(reseller.account.id, user), now)
        if len(users) >= _MAX_USERS:  # names are the reseller's to make up
            users.clear()
        users[name] = holder
        return holder

    def refresh(self) -> bool:
        """Read what was changed since the last time; tell whether anything was.

        Raises:
            StateError: The database cannot be reached. What is known stays.
        """
        with self._database.read() as connection:
            epoch = connection.execute(sa.select(tables.epoch.c.n)).scalar_one()
            if epoch == self.epoch:
                return False
            if 0 <= self.epoch < epoch <= self.epoch + KEPT_EPOCHS:
                self._read_changes(connection)
            else:
                self._read_all(connection)
        self.epoch = epoch
        self._holders, self._users = {}, {}
        return True

    def __len__(self) -> int:
        """Return the number of accounts."""
        return len(self._accounts)

    def _compose(self, key: Key, now: float) -> Holder | None:
        holders = self._holders  # a refresh meanwhile puts another dict in its place
        account = self._accounts[key.account]
        standing = self._standings.get(account.id, {}).get("") or Standing(account.id)
        holder = compose(
            key,
            account,
            self._orgs[account.org],
            self._plans[account.plan],
            standing,
            uses=self._uses.get(account.id, ()),
            blocks=self._blocks,
            now=now,
        )
        if holder is not None:
            holders[key.id] = holder
        return holder

    def _read_all(self, connection: sa.Connection) -> None:
        for read in self._readers().values():
            read(connection, None)

    def _read_changes(self, connection: sa.Connection) -> None:
        query = sa.select(tables.change.c.kind, tables.change.c.id)
        changed: dict[str, set[str]] = defaultdict(set)
        for kind, id in connection.execute(query.where(tables.change.c.epoch > self.epoch)):
            changed[kind].add(id)
        for kind, read in self._readers().items():
            if kind in changed:
                read(connection, changed[kind])

    def _readers(self) -> dict[str, Callable[[sa.Connection, _Ids], None]]:
        """Return what reads each kind of record, in the order in which they refer to one another.

        Nothing is ever deleted from these tables, so reading again what was touched is enough.
        """
        return {
            "org": self._read_orgs,
            "plan": self._read_plans,
            "account": self._read_accounts,
            "standing": self._read_standings,
            "use": self._read_uses,
            "block": self._read_blocks,
            "setting": self._read_rules,
            "key": self._read_keys,
        }

    def _read_orgs(self, connection: sa.Connection, ids: _Ids) -> None:
        for row in _rows(connection, tables.organisation.c.id, ids):
            self._orgs[row["id"]] = records.organisation(row)

    def _read_plans(self, connection: sa.Connection, ids: _Ids) -> None:
        for row in _rows(connection, tables.plan.c.id, ids):
            self._plans[row["id"]] = records.plan(row)

    def _read_accounts(self, connection: sa.Connection, ids: _Ids) -> None:
        for row in _rows(connection, tables.account.c.id, ids):
            self._accounts[row["id"]] = self._shared_account(records.account(row))

    def _read_standings(self, connection: sa.Connection, ids: _Ids) -> None:
        found: dict[str, dict[str, Standing]] = defaultdict(dict)
        for row in _rows(connection, tables.standing.c.account, ids):
            found[row["account"]][row["user"]] = records.standing(row)
        self._standings.update(found)

    def _read_uses(self, connection: sa.Connection, ids: _Ids) -> None:
        found: dict[str, list[DeclaredUse]] = defaultdict(list)
        for row in _rows(connection, tables.declared_use.c.account, ids):
            found[row["account"]].append(records.use(row))
        self._uses.update({account: tuple(uses) for account, uses in found.items()})

    def _read_blocks(self, connection: sa.Connection, _: _Ids) -> None:
        self._blocks = tuple(blocks(connection))

    def _read_rules(self, connection: sa.Connection, _: _Ids) -> None:
        self.rules = sanction_rules(connection)

    def _read_keys(self, connection: sa.Connection, ids: _Ids) -> None:
        for row in _rows(connection, tables.api_key.c.id, ids):
            self._keys[row["id"]] = self._shared_key(records.key(row))

    def _shared_account(self, account: Account) -> Account:
        """Let accounts share the strings and lists of their organisation and plan."""
        org, plan = self._orgs[account.org].id, self._plans[account.plan].id
        return replace(account, org=org, plan=plan)

    def _shared_key(self, key: Key) -> Key:
        return replace(key, account=self._accounts[key.account].id)


def _rows(connection: sa.Connection, column: sa.Column[str], ids: _Ids) -> Generator[sa.RowMapping]:
    """Yield the rows of a column's table in which it is one of the ids, or all rows."""
    query = sa.select(column.table)
    if ids is None:
        yield from connection.execution_options(yield_per=_BATCH).execute(query).mappings()
        return
    wanted = sorted(ids)
    for first in range(0, len(wanted), _BATCH):
        part = query.where(column.in_(wanted[first : first + _BATCH]))
        yield from connection.execute(part).mappings()
