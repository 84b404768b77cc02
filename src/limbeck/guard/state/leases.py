"""Leases: how a budget is shared out among workers so that together they never spend more than it.

A meter counts what is `taken` of one budget in one window: what was charged and what is leased out. A worker leases a block,
admits requests against it from memory, and asks for another when it is used up. Blocks shrink with what is left, so that
little of it lies unused elsewhere; unused blocks are given back. `taken` never passes the limit by a grant, and a worker
never admits more than its leases hold: that is the whole proof of exactness.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from limbeck.guard.account import Measure, Window

_PARTS = 16


@dataclass(frozen=True, slots=True, order=True)
class Meter:
    """One budget in one window: whose, of what, since when (seconds since 1970 UTC)."""

    holder: str
    measure: Measure
    window: Window
    starts: int


@dataclass(frozen=True, slots=True)
class Want:
    """What a worker asks for: at least `need` of a meter whose budget is `limit`, added to a lease that it has.

    `lease` 0 asks for a new one. A lease is never found by its meter: one that is being closed must not grow.
    """

    meter: Meter
    limit: int
    need: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """What it gets: `amount` in the lease of that id. None is granted unless all that were asked for together are.

    `left` is what the budget still holds, whoever asks; `elsewhere` what other leases hold and was
    not reported as charged, so that some of it may come back.
    """

    lease: int
    amount: int
    left: int
    elsewhere: int


class LeaseStore(Protocol):
    """Where meters and leases are kept. Every call is one transaction: done or not done, even if the caller dies in it."""

    def join(self, worker: str, host: str) -> None:
        """Enter a worker, so that it may hold leases."""
        ...

    def grant(self, worker: str, wants: Sequence[Want]) -> list[Grant]:
        """Lease what is wanted, all or nothing; one grant for each want, of amount 0 where nothing was leased.

        Raises:
            StateError: The store cannot be reached.
            LostError: The worker was given up as lost.
        """
        ...

    def report(self, worker: str, charged: Mapping[int, int], *, complete: bool = False) -> None:
        """Say that the worker lives, and how much it has charged of its leases so far.

        Args:
            worker: Who reports.
            charged: By lease id.
            complete: Whether these are all its leases. Others, from a grant whose answer was lost, are then ended.

        Raises:
            StateError: The store cannot be reached.
            LostError: The worker was given up as lost.
        """
        ...

    def close(self, worker: str, charged: Mapping[int, int]) -> None:
        """End leases: what was charged stays taken, the rest is free. A lease that is not there is passed over."""
        ...

    def charge(self, debts: Mapping[Meter, int]) -> None:
        """Take amounts that were spent without a lease, past the limit if need be."""
        ...

    def leave(self, worker: str, charged: Mapping[int, int], *, forgive: bool) -> None:
        """End every lease of a worker and forget it.

        Args:
            worker: It left, was killed, or is lost.
            charged: What is known of its leases, by id.
            forgive: Whether leases of which nothing is known give back what was not reported.
        """
        ...

    def beats(self) -> dict[str, int]:
        """Return how often each worker has reported."""
        ...

    def spent(self, holder: str) -> dict[Meter, tuple[int, int]]:
        """Return what is charged and what is leased out beside it, of each meter of a holder."""
        ...

    def prune(self, now: float) -> None:
        """Forget meters of windows that ended long ago."""
        ...

    def shut(self) -> None:
        """Close the connections."""
        ...


def share(left: int, need: int) -> int:
    """Return how much to lease out of what is left, when `need` is needed: a sixteenth at most, or the need itself.

    0 if the need is more than what is left.
    """
    if need > left:
        return 0
    return max(need, left // _PARTS)
