"""Leases in the accounts' database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from limbeck.errors import LostError
from limbeck.guard.account import Measure, Window
from limbeck.guard.state import tables
from limbeck.guard.state.database import Database
from limbeck.guard.state.leases import Grant, Meter, Want, share
from limbeck.guard.window import DAY_S

_meter, _lease, _worker = tables.meter, tables.lease, tables.worker
_KEPT_S = {Window.MINUTE: 600, Window.DAY: 100 * DAY_S, Window.MONTH: 800 * DAY_S}


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
        self._insert = sqlite.insert if database.embedded else postgresql.insert

    def join(self, worker: str, host: str) -> None:
        """Enter a worker."""
        with self._database.write() as connection:
            connection.execute(sa.insert(_worker).values(id=worker, host=host, beat=0))

    def grant(self, worker: str, wants: Sequence[Want]) -> list[Grant]:
        """Lease what is wanted, all or nothing."""
        with self._database.write() as connection:
            self._known(connection, worker)
            meters = {w.meter: self._locked(connection, w.meter) for w in _in_order(wants)}
            amounts = [share(w.limit - meters[w.meter][1], w.need) for w in wants]
            if not all(amounts):
                return [self._denied(connection, w, *meters[w.meter]) for w in wants]
            return [
                self._granted(connection, worker, w, *meters[w.meter], amount)
                for w, amount in zip(wants, amounts, strict=True)
            ]

    def report(self, worker: str, charged: Mapping[int, int], *, complete: bool = False) -> None:
        """Say that the worker lives, and what it has charged."""
        with self._database.write() as connection:
            self._known(connection, worker)
            beat = sa.update(_worker).filter_by(id=worker).values(beat=_worker.c.beat + 1)
            connection.execute(beat)
            if charged:
                mine = (_lease.c.id == sa.bindparam("lease")) & (_lease.c.worker == worker)
                rows = [{"lease": id, "now": amount} for id, amount in charged.items()]
                update = sa.update(_lease).where(mine).values(charged=sa.bindparam("now"))
                connection.execute(update, rows)
            if complete:
                for lease in self._held(connection, worker):
                    if lease.id not in charged:
                        self._end(connection, lease, 0)

    def close(self, worker: str, charged: Mapping[int, int]) -> None:
        """End leases; what was charged stays taken."""
        with self._database.write() as connection:
            self._alone(connection, worker)
            for lease in self._held(connection, worker, list(charged)):
                self._end(connection, lease, charged[lease.id])

    def charge(self, debts: Mapping[Meter, int]) -> None:
        """Take amounts that were spent without a lease."""
        with self._database.write() as connection:
            for meter, amount in sorted(debts.items()):
                self._take(connection, self._locked(connection, meter)[0], amount)

    def leave(self, worker: str, charged: Mapping[int, int], *, forgive: bool) -> None:
        """End every lease of a worker and forget it."""
        with self._database.write() as connection:
            connection.execute(sa.delete(_worker).filter_by(id=worker))
            for lease in self._held(connection, worker):
                unknown = lease.charged if forgive else lease.amount
                self._end(connection, lease, charged.get(lease.id, unknown))

    def beats(self) -> dict[str, int]:
        """Return how often each worker has reported."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(_worker.c.id, _worker.c.beat))
            return {row[0]: row[1] for row in rows}

    def spent(self, holder: str) -> dict[Meter, tuple[int, int]]:
        """Return what is charged and what is leased out beside it, of each meter of a holder."""
        unused = sa.func.coalesce(sa.func.sum(_lease.c.amount - _lease.c.charged), 0)
        query = (
            sa.select(_meter, unused)
            .join(_lease, _lease.c.meter == _meter.c.id, isouter=True)
            .where(_meter.c.holder == holder)
            .group_by(*_meter.c)
            .order_by(_meter.c.starts)
        )
        with self._database.read() as connection:
            return {
                _meter_of(*row[1:5]): (row[5] - int(row[6]), int(row[6]))
                for row in connection.execute(query)
            }

    def prune(self, now: float) -> None:
        """Forget meters of windows that ended long ago, and on which nobody holds a lease."""
        held = sa.select(_lease.c.meter)
        with self._database.write() as connection:
            for window, kept in _KEPT_S.items():
                old = (_meter.c.window == window.value) & (_meter.c.starts < now - kept)
                connection.execute(sa.delete(_meter).where(old, _meter.c.id.not_in(held)))

    def shut(self) -> None:
        """Close the connections."""
        self._database.close()

    def _known(self, connection: sa.Connection, worker: str) -> None:
        if not self._alone(connection, worker):
            raise LostError(f"worker {worker} was given up as lost")

    def _alone(self, connection: sa.Connection, worker: str) -> bool:
        """Wait until no other transaction changes this worker's leases; tell whether the worker is known."""
        query = sa.select(_worker.c.beat).filter_by(id=worker).with_for_update()
        return connection.execute(query).first() is not None

    def _held(
        self, connection: sa.Connection, worker: str, ids: list[int] | None = None
    ) -> list[_Lease]:
        """Return a worker's leases, or some of them, in the order in which everybody locks their meters."""
        query = sa.select(
            _lease.c.id,
            _lease.c.amount,
            _lease.c.charged,
            _meter.c.id,
            _meter.c.holder,
            _meter.c.measure,
            _meter.c.window,
            _meter.c.starts,
        ).join(_meter, _lease.c.meter == _meter.c.id)
        query = query.where(_lease.c.worker == worker)
        if ids is not None:
            query = query.where(_lease.c.id.in_(ids))
        rows = connection.execute(query)
        found = [_Lease(*row[:4], _meter_of(*row[4:])) for row in rows]
        return sorted(found, key=lambda lease: lease.of)

    def _locked(self, connection: sa.Connection, meter: Meter) -> tuple[int, int]:
        """Return a meter's id and what is taken of it; nobody else changes it until the transaction ends."""
        where = {
            "holder": meter.holder,
            "measure": meter.measure.value,
            "window": meter.window.value,
            "starts": meter.starts,
        }
        query = sa.select(_meter.c.id, _meter.c.taken).filter_by(**where).with_for_update()
        row = connection.execute(query).first()
        if row is None:
            made = self._insert(_meter).values(**where, taken=0).on_conflict_do_nothing()
            connection.execute(made)
            row = connection.execute(query).one()
        return row[0], row[1]

    def _granted(
        self, connection: sa.Connection, worker: str, want: Want, id: int, taken: int, amount: int
    ) -> Grant:
        self._take(connection, id, amount)
        if want.lease:
            more = _lease.c.amount + amount
            mine = sa.update(_lease).filter_by(id=want.lease, worker=worker).values(amount=more)
            if connection.execute(mine).rowcount != 1:
                raise LostError(f"lease {want.lease} of worker {worker} is gone")
            lease = want.lease
        else:
            made = sa.insert(_lease).values(worker=worker, meter=id, amount=amount, charged=0)
            lease = connection.execute(made.returning(_lease.c.id)).scalar_one()
        return Grant(lease, amount, want.limit - taken - amount, 0)

    def _denied(self, connection: sa.Connection, want: Want, id: int, taken: int) -> Grant:
        unused = sa.func.coalesce(sa.func.sum(_lease.c.amount - _lease.c.charged), 0)
        others = (_lease.c.meter == id) & (_lease.c.id != want.lease)
        elsewhere = connection.execute(sa.select(unused).where(others)).scalar_one()
        return Grant(0, 0, want.limit - taken, int(elsewhere))

    def _end(self, connection: sa.Connection, lease: _Lease, charged: int) -> None:
        connection.execute(sa.delete(_lease).filter_by(id=lease.id))
        self._take(connection, lease.meter, charged - lease.amount)

    def _take(self, connection: sa.Connection, id: int, amount: int) -> None:
        taken = _meter.c.taken + amount
        connection.execute(sa.update(_meter).filter_by(id=id).values(taken=taken))


def _in_order(wants: Sequence[Want]) -> list[Want]:
    """Return wants in the order in which everybody locks them, so that nobody waits in a circle."""
    return sorted(wants, key=lambda want: want.meter)


def _meter_of(holder: str, measure: str, window: str, starts: int) -> Meter:
    return Meter(holder, Measure(measure), Window(window), starts)
