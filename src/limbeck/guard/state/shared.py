"""The accounts as a worker of the gateway holds them: a mirror to look up, leases to spend, a timer that keeps both fresh."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from limbeck.errors import StateError
from limbeck.guard.account import DeclaredUse, Holder
from limbeck.guard.accounts import Refusal, Reservation
from limbeck.guard.sanction import SanctionRules
from limbeck.guard.state.home import State
from limbeck.guard.state.housekeeping import forget_changes, lapse_appeals
from limbeck.guard.state.identifier import is_user
from limbeck.guard.state.leases import LeaseStore
from limbeck.guard.state.mirror import Mirror
from limbeck.guard.state.recovery import Watch, settle_dead
from limbeck.guard.state.settings import WhenGone
from limbeck.guard.state.spender import Spender, steady_clock
from limbeck.guard.state.stores import open_store

_log = logging.getLogger(__name__)
_TICK_S = 1.0
_RECOVER_S = 5.0
_TIDY_S = 60.0
_FORGET_S = 3600.0


@dataclass(slots=True)
class _Job:
    """Something that the timer does; `due` by the steady clock."""

    name: str
    period: float
    call: Callable[[], object]
    due: float = float("-inf")
    failing: bool = False


class SharedAccounts:
    """The door `Accounts` over a database that every worker shares. Open one in each worker process.

    Args:
        state: The guard's open folder.
        clock: A steady clock in seconds.
        store: Where budgets are counted; by default as the settings say.

    Raises:
        StateError: The database or the counters cannot be reached: a worker does not start without them.
    """

    def __init__(
        self,
        state: State,
        *,
        clock: Callable[[], float] | None = None,
        store: LeaseStore | None = None,
    ) -> None:
        self._clock = clock or steady_clock()
        self._mirror = Mirror(state.database, state.pepper)
        self._mirror.refresh()
        self._fresh = self._clock()
        self._store = store or open_store(state)
        settle_dead(self._store, state.shares)
        self._spender = Spender(self._store, state.shares, state.settings, self._clock)
        self._watch = Watch(self._store, state.shares, state.settings, self._clock)
        self._shares = state.shares
        self._stale_after = (
            state.settings.stale_seconds
            if state.settings.accounts_when_gone is WhenGone.REFUSE
            else float("inf")
        )
        self._jobs = (
            _Job("accounts", state.settings.refresh_seconds, self.refresh),
            _Job("budgets", _TICK_S, self._spender.tick),
            _Job("recovery", _RECOVER_S, self.recover),
            _Job("appeals", _TIDY_S, lambda: lapse_appeals(state.database, state.clock())),
            _Job("pruning", _TIDY_S, lambda: self._store.prune(state.clock())),
            _Job("changes", _FORGET_S, lambda: forget_changes(state.database)),
        )
        self._stop = threading.Event()
        self._timer: threading.Thread | None = None

    def start(self) -> Self:
        """Start the timer, a thread of this process: start it after forking."""
        self._timer = threading.Thread(target=self._run, name="limbeck-accounts", daemon=True)
        self._timer.start()
        return self

    def close(self) -> None:
        """Stop the timer and give every lease back.

        Raises:
            StateError: The counters cannot be reached; whoever starts next on this machine gives them back.
        """
        self._stop.set()
        if self._timer is not None:
            self._timer.join()
        self._spender.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rules(self) -> SanctionRules:
        """The operator's rules of sanctions, as fresh as the accounts."""
        return self._mirror.rules

    @property
    def age(self) -> float:
        """Seconds since the accounts were last known to be fresh."""
        return self._clock() - self._fresh

    @property
    def ready(self) -> bool:
        """Whether keys are answered and budgets can be leased, for /readyz."""
        return not self._stale() and not self._spender.gone

    def authenticate(self, key: str, now: float) -> Holder | None:
        """Return whose key this is, or None if it opens nothing."""
        if self._stale():
            raise StateError(f"the accounts were last read {self.age:.0f} s ago, which is too long")
        return self._mirror.find(key, now)

    def on_behalf(self, holder: Holder, user: str, now: float) -> Holder | None:
        """Return the holder for a user behind a reseller."""
        rules = holder.account.sub_accounts
        if rules is None:
            return holder
        if not user:
            return None if rules.required else holder
        if not is_user(user):
            return None
        return self._mirror.find_user(holder, user, now)

    def reserve(
        self, holder: Holder, *, requests: int, tokens: int, cost: int, now: float
    ) -> Reservation | Refusal:
        """Take amounts out of every budget, or out of none."""
        return self._spender.reserve(holder, (requests, tokens, cost), now)

    def settle(self, reservation: Reservation, *, tokens: int, cost: int) -> None:
        """Charge what a request really took."""
        reservation.settle(tokens=tokens, cost=cost)

    def release(self, reservation: Reservation) -> None:
        """Give everything back."""
        reservation.release()

    def draw(self, use: DeclaredUse, *, requests: int, now: float) -> bool:
        """Count requests against a declared use's volume."""
        return use.volume is None or self._spender.draw(use, requests, now)

    def refresh(self) -> None:
        """Read what was changed; the timer does this every `refresh_seconds`.

        Raises:
            StateError: The database cannot be reached.
        """
        at = self._clock()
        self._mirror.refresh()
        self._fresh = at

    def recover(self) -> None:
        """Settle what dead and lost workers left behind.

        Raises:
            StateError: The counters cannot be reached.
        """
        settle_dead(self._store, self._shares)
        self._watch.lose_silent()

    def work(self) -> None:
        """Do what is due of the timer's work. What fails is said once, tried again, and holds up nothing else."""
        for job in self._jobs:
            at = self._clock()
            if at < job.due:
                continue
            job.due = at + job.period
            try:
                job.call()
            except StateError as error:
                if not job.failing:
                    _log.warning("%s: %s; trying again every %g s", job.name, error, job.period)
                job.failing = True
            else:
                job.failing = False

    def _run(self) -> None:
        while not self._stop.wait(self._jobs[0].period):
            self.work()

    def _stale(self) -> bool:
        return self._clock() - self._fresh > self._stale_after
