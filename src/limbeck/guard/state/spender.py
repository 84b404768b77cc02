"""What one worker may spend: reservations answered from its leases, and leases kept up with the store.

Two threads meet here: the data path reserves and settles, and a timer calls `tick`. The lock is never held while the
timer waits for the store; the data path holds it while it asks for a lease, which only the timer would notice.
"""

import functools
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from os import getpid
from pathlib import Path

from limbeck.errors import LostError, StateError
from limbeck.guard.account import Budget, DeclaredUse, Holder, Measure, Window
from limbeck.guard.accounts import Lack, Refusal
from limbeck.guard.state.counters import Counters
from limbeck.guard.state.leases import Grant, LeaseStore, Meter, Want
from limbeck.guard.state.purse import (
    Amounts,
    Lease,
    Purse,
    Spending,
    correct,
    open_purse,
    take,
)
from limbeck.guard.state.settings import StateSettings, WhenGone

_BATCH = 500
_ROUNDS = 20
"""A tick ends at most so many batches of leases; small ones, so that the data path is not held up."""
_ASK_AGAIN_S = 0.25
_ASK_SPENT_S = 10.0
_GONE_RETRY_S = 1.0


class Spender:
    """Owns a worker's leases and its counters' file.

    Args:
        store: Where meters and leases are kept.
        folder: Of the counters' files; one for all workers of a machine.
        settings: How long leases are good, and what happens when the store is gone.
        clock: A steady clock in seconds, which a step of the wall clock does not move.
    """

    def __init__(
        self,
        store: LeaseStore,
        folder: Path,
        settings: StateSettings,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._store, self._folder, self._settings = store, folder, settings
        self._clock = clock or steady_clock()
        self._lock = threading.Lock()
        self._purses: dict[str, Purse] = {}
        self._retired: list[Lease] = []
        self._debts: Counter[Meter] = Counter()
        self._gone = True
        self._failures = 0
        self._good_until = float("-inf")
        self._join()

    @property
    def worker(self) -> str:
        """The worker's name in the store."""
        return self._worker

    @property
    def gone(self) -> bool:
        """Whether the store could not be reached the last time."""
        return self._gone

    def reserve(self, holder: Holder, amounts: Amounts, now: float) -> Spending | Refusal:
        """Take amounts out of every budget of a holder and its reseller, or out of none."""
        with self._lock:
            leases = self._leases(holder, now)
            at = self._clock()
            if at < self._good_until or not leases:
                for lease in leases:
                    if (
                        lease.left < amounts[lease.kind] > 0
                    ):  # nothing is never too much, even overdrawn
                        break
                else:
                    take(leases, amounts, self._counters.cells, at)
                    return Spending(leases, amounts, self._correct)
            refusal = self._refill(leases, amounts, now, at)
            if refusal is not None:
                return refusal
            take(leases, amounts, self._counters.cells, at)
            return Spending(leases, amounts, self._correct)

    def draw(self, use: DeclaredUse, requests: int, now: float) -> bool:
        """Count requests against the volume of a declared use; False when it is used up or cannot be counted."""
        name = f"use:{use.id}"
        volume = (Budget(Measure.REQUESTS, Window.LIFE, use.volume or 0),)
        with self._lock:
            leases = self._purse(name, volume, now).leases
            at, amounts = self._clock(), (requests, 0, 0)
            short = at >= self._good_until or leases[0].left < requests
            if short and self._refill(leases, amounts, now, at) is not None:
                return False
            take(leases, amounts, self._counters.cells, at)
            leases[0].opens -= 1
            return True

    def tick(self) -> None:
        """Report, give back what is idle or over, and pay debts; call it about once a second.

        Raises:
            StateError: The store cannot be reached; nothing is lost, the next tick goes on.
        """
        try:
            self._report()
            for _ in range(_ROUNDS):
                if not self._close(self._over()):
                    break
            self._pay()
        except LostError:
            self._rejoin()
        except StateError:
            self._fail()
            raise

    def close(self) -> None:
        """Give everything back and leave. Reservations that are still open are charged as far as they are settled.

        Raises:
            StateError: The store cannot be reached; the counters' file stays for whoever comes next.
        """
        with self._lock:
            held = {lease.id: lease.charged for lease in self._all() if lease.id}
            self._good_until = float("-inf")
        self._pay()
        self._store.leave(self._worker, held, forgive=True)
        self._counters.close()

    def _leases(self, holder: Holder, now: float) -> tuple[Lease, ...]:
        leases = self._purse(holder.id, holder.budgets, now).leases
        if holder.reseller is None:
            return leases
        reseller = holder.reseller
        return leases + self._purse(reseller.id, reseller.budgets, now).leases

    def _purse(self, name: str, budgets: tuple[Budget, ...], now: float) -> Purse:
        purse = self._purses.get(name)
        if purse is not None and purse.budgets is budgets and purse.starts <= now < purse.ends:
            return purse
        kept = () if purse is None else purse.leases
        made = open_purse(name, budgets, now, kept)
        self._retired += [lease for lease in kept if lease not in made.leases]
        self._purses[name] = made
        return made

    def _refill(
        self, leases: Sequence[Lease], amounts: Amounts, now: float, at: float
    ) -> Refusal | None:
        """Lease what is missing, or say why not."""
        short = [lease for lease in leases if lease.left < amounts[lease.kind] > 0]
        for lease in short:
            if at < lease.asks_after and amounts[lease.kind] - lease.left > lease.room:
                return _refusal(lease, now, at)
        if self._gone or at >= self._good_until:
            return self._without_store(leases)
        wants = [_want(lease, amounts[lease.kind]) for lease in short]
        try:
            grants = self._store.grant(self._worker, wants)
        except StateError:  # the timer finds out whether it is back, or that this worker is lost
            self._fail()
            return self._without_store(leases)
        return self._accept(short, wants, grants, now, at)

    def _without_store(self, leases: Sequence[Lease]) -> Refusal | None:
        if self._settings.budgets_when_gone is WhenGone.ALLOW:
            return None
        return Refusal(leases[0].meter.holder, _GONE_RETRY_S, lack=Lack.STATE)

    def _fail(self) -> None:
        """Remember that the store could not be reached, and that a grant may have been made and not heard of."""
        self._gone = True
        self._failures += 1

    def _accept(
        self,
        short: Sequence[Lease],
        wants: Sequence[Want],
        grants: Sequence[Grant],
        now: float,
        at: float,
    ) -> Refusal | None:
        refusal = None
        for lease, want, grant in zip(short, wants, grants, strict=True):
            lease.touched = at
            if grant.amount:
                lease.left += grant.amount
                if not lease.id:
                    lease.id = grant.lease
                    lease.slot = self._slot(lease)
            elif grant.left < want.need:
                lease.room = max(grant.left, 0)
                lease.spent = grant.elsewhere <= 0 and not (
                    lease.opens and lease.kind
                )  # requests stay
                lease.asks_after = at + (_ASK_SPENT_S if lease.spent else _ASK_AGAIN_S)
                refusal = refusal or _refusal(lease, now, at)
        return refusal

    def _slot(self, lease: Lease) -> int | None:
        """Give a lease its place in the counters; none on a full disk, and then only a kill would forget its charges."""
        try:
            return self._counters.claim(lease.id, lease.charged)
        except StateError:
            return None

    def _correct(self, spending: Spending, real: Amounts) -> None:
        with self._lock:
            if spending.open:
                correct(spending, real, self._counters.cells)

    def _all(self) -> list[Lease]:
        return [
            *(lease for purse in self._purses.values() for lease in purse.leases),
            *self._retired,
        ]

    def _report(self) -> None:
        """Tell the store that this worker lives and what it charged; after an outage, of every lease."""
        with self._lock:
            at, complete, failures = self._clock(), self._gone, self._failures
            leases = [lease for lease in self._all() if lease.id]
            if not complete:
                changed = (lease for lease in leases if _worth_reporting(lease))
                leases = [lease for lease, _ in zip(changed, range(_BATCH), strict=False)]
            told = {lease.id: lease.charged for lease in leases}
        self._store.report(self._worker, told, complete=complete)
        with self._lock:
            for lease in leases:
                lease.reported = told.get(lease.id, lease.reported)
            self._gone = (
                failures != self._failures
            )  # one more meanwhile: its leases are not in this report
            self._good_until = at + self._settings.lease_seconds

    def _over(self) -> list[Lease]:
        """Take out the leases that nobody will use any more: they lay idle, or their window was left."""
        with self._lock:
            idle = self._clock() - self._settings.idle_seconds
            for name, purse in list(self._purses.items()):
                if all(lease.touched < idle and not lease.opens for lease in purse.leases):
                    del self._purses[name]
                    self._retired += purse.leases
            over = [lease for lease in self._retired if not lease.opens][:_BATCH]
            gone = set(map(id, over))
            self._retired = [lease for lease in self._retired if id(lease) not in gone]
            return over

    def _close(self, leases: Sequence[Lease]) -> bool:
        """End leases in the store, if there are any; if it cannot be reached, they wait for the next tick."""
        if not leases:
            return False
        try:
            if held := {lease.id: lease.charged for lease in leases if lease.id}:
                self._store.close(self._worker, held)
        except StateError:
            with self._lock:
                self._retired += leases
            raise
        with self._lock:
            for lease in leases:
                if lease.slot is not None:
                    self._counters.free(lease.slot)
                elif not lease.id:
                    self._debts[lease.meter] += lease.charged
        return True

    def _pay(self) -> None:
        """Charge what was spent without a lease while the store was gone."""
        with self._lock:
            for lease in self._all():
                if not lease.id and lease.charged:
                    self._debts[lease.meter] += lease.charged
                    lease.left += lease.charged
                    lease.charged = 0
            debts, self._debts = {m: n for m, n in self._debts.items() if n}, Counter()
        try:
            if debts:
                self._store.charge(debts)
        except StateError:
            with self._lock:
                self._debts.update(debts)
            raise

    def _join(self) -> None:
        host = socket.gethostname()
        self._worker = f"{host[:32]}-{getpid()}-{secrets.token_hex(4)}"
        counters = Counters(
            self._folder, self._worker
        )  # first: who is killed in between is found by it
        try:
            self._store.join(self._worker, host)
        except StateError:
            counters.close()
            raise
        self._counters = counters
        self._good_until = self._clock() + self._settings.lease_seconds
        self._gone = False

    def _rejoin(self) -> None:
        """Start over after the others gave this worker up: its leases were ended, what it overdrew is owed."""
        with self._lock:
            for lease in self._all():
                owed = lease.charged if not lease.id else max(-lease.left, 0)
                self._debts[lease.meter] += owed
                lease.slot = None
            self._purses, self._retired = {}, []
            old = self._counters
            self._join()
            old.close()


def steady_clock() -> Callable[[], float]:
    """Return a clock that no one sets; where there is one, it also counts while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic


def _want(lease: Lease, amount: int) -> Want:
    return Want(lease.meter, lease.budget.limit, amount - lease.left, lease.id)


def _refusal(lease: Lease, now: float, at: float) -> Refusal:
    rest = max(lease.ends - now, 0.0)
    wait = rest if lease.spent else min(rest, max(lease.asks_after - at, 0.0))
    left = max(lease.left + lease.room, 0)
    return Refusal(lease.meter.holder, wait, lease.budget, left)


def _worth_reporting(lease: Lease) -> bool:
    return lease.charged != lease.reported and lease.meter.window is not Window.MINUTE
