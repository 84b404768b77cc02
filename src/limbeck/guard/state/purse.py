"""A worker's leases in memory: what is left of each, what is held for requests in flight, what is charged."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from limbeck.guard.account import Budget, Measure
from limbeck.guard.state.leases import Meter
from limbeck.guard.window import span

KINDS = (Measure.REQUESTS, Measure.TOKENS, Measure.COST)
_REQUESTS = 0
Amounts = tuple[int, int, int]
"""Of requests, tokens and cost."""


@dataclass(slots=True, eq=False)
class Lease:
    """One lease: `left` may be spent; what is not left is charged, or held by a reservation.

    `id` is 0 until something was granted. `slot` is its place in the counters, None without one. `opens` counts
    reservations that may still change it. Until `asks_after` (by the steady clock) it is no use to ask for more than
    `room`, which the store had left; `spent` tells that nobody holds anything that may come back.
    """

    meter: Meter
    budget: Budget
    kind: int
    ends: int
    id: int = 0
    slot: int | None = None
    left: int = 0
    charged: int = 0
    opens: int = 0
    reported: int = 0
    touched: float = 0.0
    asks_after: float = 0.0
    room: int = 0
    spent: bool = False


@dataclass(slots=True, eq=False)
class Purse:
    """The leases for all budgets of one holder, true from `starts` until `ends`."""

    budgets: tuple[Budget, ...]
    leases: tuple[Lease, ...]
    starts: float
    ends: float


@dataclass(slots=True, eq=False)
class Spending:
    """A reservation: the leases it took from, and what it took. The first `settle` or `release` counts."""

    leases: tuple[Lease, ...]
    amounts: Amounts
    _correct: "Callable[[Spending, Amounts], None]"
    open: bool = field(default=True)

    def settle(self, *, tokens: int, cost: int) -> None:
        """Charge what the request really took, and give back the rest."""
        if self.open:
            self._correct(self, (self.amounts[_REQUESTS], tokens, cost))

    def release(self) -> None:
        """Give everything back, the request included."""
        if self.open:
            self._correct(self, (0, 0, 0))


def open_purse(
    holder: str, budgets: tuple[Budget, ...], now: float, kept: Iterable[Lease] = ()
) -> Purse:
    """Return a purse for a time, with the leases out of `kept` that are still good and empty ones for the rest."""
    old = {lease.meter: lease for lease in kept}
    leases: list[Lease] = []
    starts, ends = float("-inf"), float("inf")
    for budget in budgets:
        start, end = span(budget.window, now)
        meter = Meter(holder, budget.measure, budget.window, start)
        lease = old.get(meter) or Lease(meter, budget, KINDS.index(budget.measure), end)
        if lease.budget != budget:
            lease.budget, lease.asks_after = budget, 0.0
        leases.append(lease)
        starts, ends = max(starts, start), min(ends, end)
    return Purse(budgets, tuple(leases), starts, ends)


def take(leases: tuple[Lease, ...], amounts: Amounts, cells: memoryview, at: float) -> None:
    """Take amounts out of leases: requests are charged at once, tokens and cost are held."""
    for lease in leases:
        amount = amounts[lease.kind]
        lease.left -= amount
        lease.opens += 1
        lease.touched = at
        if lease.kind == _REQUESTS:
            lease.charged += amount
            if lease.slot is not None:
                cells[2 * lease.slot + 1] = lease.charged


def correct(spending: Spending, real: Amounts, cells: memoryview) -> None:
    """Replace what a reservation took by what was really taken, and close it."""
    spending.open = False
    for lease in spending.leases:
        held, amount = spending.amounts[lease.kind], real[lease.kind]
        lease.opens -= 1
        lease.left += held - amount
        lease.charged += amount - held if lease.kind == _REQUESTS else amount
        if lease.slot is not None:
            cells[2 * lease.slot + 1] = lease.charged
