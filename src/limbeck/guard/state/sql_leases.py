"""Leases in the accounts' database.

Statements are written out and made once: a grant is on a request's path, and building them anew would cost more than
running them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from limbeck.errors import LostError
from limbeck.guard.account import Measure, Window
from limbeck.guard.state.database import Database
from limbeck.guard.state.leases import Grant, Meter, Want, share
from limbeck.guard.window import DAY_S

_KEPT_S = {Window.MINUTE: 600, Window.DAY: 100 * DAY_S, Window.MONTH: 800 * DAY_S}
_BATCH = 500

_JOIN = sa.text("INSERT INTO worker (id, host, beat) VALUES (:worker, :host, 0)")
_BEAT = sa.text("UPDATE worker SET beat = beat + 1 WHERE id = :worker")
_FORGET = sa.text("DELETE FROM worker WHERE id = :worker")
_BEATS = sa.text("SELECT id, beat FROM worker")
_METER = sa.text(
    'INSERT INTO meter (holder, measure, "window", starts, taken) '
    "VALUES (:holder, :measure, :window, :starts, 0) "
    'ON CONFLICT (holder, measure, "window", starts) DO UPDATE SET taken = meter.taken '
    "RETURNING id, taken"
)
"""Finds a meter or makes it, and keeps others from it until the transaction ends."""
_TAKE = sa.text("UPDATE meter SET taken = taken + :amount WHERE id = :meter")
_LEASE = sa.text(
    "INSERT INTO lease (worker, meter, amount, charged) VALUES (:worker, :meter, :amount, 0) "
    "RETURNING id"
)
_GROW = sa.text("UPDATE lease SET amount = amount + :amount WHERE id = :lease AND worker = :worker")
_CHARGED = sa.text("UPDATE lease SET charged = :charged WHERE id = :lease AND worker = :worker")
_END = sa.text("DELETE FROM lease WHERE id = :lease")
_ELSEWHERE = sa.text(
    "SELECT coalesce(sum(amount - charged), 0) FROM lease WHERE meter = :meter AND id <> :lease"
)
_HELD = (
    "SELECT lease.id, lease.amount, lease.charged, lease.meter, "
    'meter.holder, meter.measure, meter."window", meter.starts '
    "FROM lease JOIN meter ON meter.id = lease.meter WHERE lease.worker = :worker"
)
_HELD_ALL = sa.text(_HELD)
_HELD_SOME = sa.text(_HELD + " AND lease.id IN :leases").bindparams(
    sa.bindparam("leases", expanding=True)
)
_SPENT = sa.text(
    'SELECT meter.measure, meter."window", meter.starts, meter.taken, '
    "coalesce(sum(lease.amount - lease.charged), 0) "
    "FROM meter LEFT JOIN lease ON lease.meter = meter.id WHERE meter.holder = :holder "
    'GROUP BY meter.id, meter.measure, meter."window", meter.starts, meter.taken '
    "ORDER BY meter.starts"
)
_PRUNE = sa.text(
    'DELETE FROM meter WHERE "window" = :window AND starts < :before '
    "AND id NOT IN (SELECT meter FROM lease)"
)


@dataclass(frozen=True, slots=True)
class _Lease:
    id: int
    amount: int
    charged: int
    meter: int
    of: Meter


class SqlLeases:
    """Owns nothing but the door to the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        alone = "SELECT beat FROM worker WHERE id = :worker"
        self._alone = sa.text(alone if database.embedded else alone + " FOR UPDATE")

    def join(self, worker: str, host: str) -> None:
        """Enter a worker."""
        with self._database.write() as connection:
            connection.execute(_JOIN, {"worker": worker, "host": host})

    def grant(self, worker: str, wants: Sequence[Want]) -> list[Grant]:
        """Lease what is wanted, all or nothing."""
        with self._database.write() as connection:
            self._known(connection, worker)
            meters = {w.meter: _locked(connection, w.meter) for w in _in_order(wants)}
            amounts = [share(w.limit - meters[w.meter][1], w.need) for w in wants]
            if not all(amounts):
                return [_denied(connection, w, *meters[w.meter]) for w in wants]
            return [
                _granted(connection, worker, w, *meters[w.meter], amount)
                for w, amount in zip(wants, amounts, strict=True)
            ]

    def report(self, worker: str, charged: Mapping[int, int], *, complete: bool = False) -> None:
        """Say that the worker lives, and what it has charged."""
        with self._database.write() as connection:
            self._known(connection, worker)
            connection.execute(_BEAT, {"worker": worker})
            if charged:
                rows = [{"lease": i, "charged": n, "worker": worker} for i, n in charged.items()]
                connection.execute(_CHARGED, rows)
            if complete:
                strays = [x for x in _held(connection, worker) if x.id not in charged]
                _end(connection, strays, dict.fromkeys((x.id for x in strays), 0))

    def close(self, worker: str, charged: Mapping[int, int]) -> None:
        """End leases; what was charged stays taken."""
        with self._database.write() as connection:
            connection.execute(self._alone, {"worker": worker}).first()
            _end(connection, _held(connection, worker, list(charged)), charged)

    def charge(self, debts: Mapping[Meter, int]) -> None:
        """Take amounts that were spent without a lease."""
        with self._database.write() as connection:
            for meter, amount in sorted(debts.items()):
                id, _ = _locked(connection, meter)
                connection.execute(_TAKE, {"meter": id, "amount": amount})

    def leave(self, worker: str, charged: Mapping[int, int], *, forgive: bool) -> None:
        """End every lease of a worker and forget it."""
        with self._database.write() as connection:
            connection.execute(_FORGET, {"worker": worker})
            held = _held(connection, worker)
            unknown = {x.id: x.charged if forgive else x.amount for x in held}
            _end(connection, held, {**unknown, **charged})

    def beats(self) -> dict[str, int]:
        """Return how often each worker has reported."""
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(_BEATS)}

    def spent(self, holder: str) -> dict[Meter, tuple[int, int]]:
        """Return what is charged and what is leased out beside it, of each meter of a holder."""
        with self._database.read() as connection:
            rows = connection.execute(_SPENT, {"holder": holder}).all()
        return {
            _meter_of(holder, measure, window, starts): (taken - int(rest), int(rest))
            for measure, window, starts, taken, rest in rows
        }

    def prune(self, now: float) -> None:
        """Forget meters of windows that ended long ago, and on which nobody holds a lease."""
        with self._database.write() as connection:
            for window, kept in _KEPT_S.items():
                connection.execute(_PRUNE, {"window": window.value, "before": int(now - kept)})

    def shut(self) -> None:
        """Close the connections."""
        self._database.close()

    def _known(self, connection: sa.Connection, worker: str) -> None:
        """Wait until no other transaction changes this worker's leases, and check that it was not given up."""
        if connection.execute(self._alone, {"worker": worker}).first() is None:
            raise LostError(f"worker {worker} was given up as lost")


def _locked(connection: sa.Connection, meter: Meter) -> tuple[int, int]:
    """Return a meter's id and what is taken of it; nobody else changes it until the transaction ends."""
    where = {
        "holder": meter.holder,
        "measure": meter.measure.value,
        "window": meter.window.value,
        "starts": meter.starts,
    }
    row = connection.execute(_METER, where).one()
    return row[0], row[1]


def _granted(
    connection: sa.Connection, worker: str, want: Want, meter: int, taken: int, amount: int
) -> Grant:
    connection.execute(_TAKE, {"meter": meter, "amount": amount})
    lease = want.lease
    if lease:
        grown = {"lease": lease, "worker": worker, "amount": amount}
        if connection.execute(_GROW, grown).rowcount != 1:
            raise LostError(f"lease {lease} of worker {worker} is gone")
    else:
        made = {"worker": worker, "meter": meter, "amount": amount}
        lease = connection.execute(_LEASE, made).scalar_one()
    return Grant(lease, amount, want.limit - taken - amount, 0)


def _denied(connection: sa.Connection, want: Want, meter: int, taken: int) -> Grant:
    elsewhere = connection.execute(_ELSEWHERE, {"meter": meter, "lease": want.lease}).scalar_one()
    return Grant(0, 0, want.limit - taken, int(elsewhere))


def _held(connection: sa.Connection, worker: str, ids: Sequence[int] | None = None) -> list[_Lease]:
    """Return a worker's leases, or some of them, in the order in which everybody locks their meters."""
    rows: list[Any] = []
    if ids is None:
        rows += connection.execute(_HELD_ALL, {"worker": worker}).all()
    else:
        for first in range(0, len(ids), _BATCH):
            some = {"worker": worker, "leases": ids[first : first + _BATCH]}
            rows += connection.execute(_HELD_SOME, some).all()
    found = [_Lease(row[0], row[1], row[2], row[3], _meter_of(*row[4:])) for row in rows]
    return sorted(found, key=lambda lease: lease.of)


def _end(connection: sa.Connection, leases: Sequence[_Lease], charged: Mapping[int, int]) -> None:
    if not leases:
        return
    taken = [{"meter": x.meter, "amount": charged[x.id] - x.amount} for x in leases]
    connection.execute(_TAKE, taken)
    connection.execute(_END, [{"lease": x.id} for x in leases])


def _in_order(wants: Sequence[Want]) -> list[Want]:
    """Return wants in the order in which everybody locks them, so that nobody waits in a circle."""
    return sorted(wants, key=lambda want: want.meter)


def _meter_of(holder: str, measure: str, window: str, starts: int) -> Meter:
    return Meter(holder, Measure(measure), Window(window), starts)
