"""Accounts in the memory of one process, for tests and trials; nothing outlives it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from limbeck.guard.account import (
    Account,
    DeclaredUse,
    Holder,
    Measure,
    Organisation,
    Plan,
    Standing,
    Window,
)
from limbeck.guard.accounts import Refusal, Reservation
from limbeck.guard.window import span

Meter = tuple[str, str, Window, int]
"""Whose, of what, in which window, since when."""


@dataclass(slots=True)
class Taken:
    """A reservation: what it took out of which meter, and whether it still may be settled."""

    taken: Counter[Meter]
    took: list[tuple[Meter, Measure, int]]
    open: bool = True

    def settle(self, *, tokens: int, cost: int) -> None:
        """Charge what the request really took, and give back the rest."""
        real = {Measure.TOKENS: tokens, Measure.COST: cost}
        self._correct(real)

    def release(self) -> None:
        """Give everything back, the request included."""
        self._correct(dict.fromkeys(Measure, 0))

    def _correct(self, real: Mapping[Measure, int]) -> None:
        if self.open:
            self.open = False
            for meter, measure, amount in self.took:
                self.taken[meter] += real.get(measure, amount) - amount


def holder_of(
    account: str, plan: Plan | None = None, *, org: str = "org", standing: Standing | None = None
) -> Holder:
    """Return a holder with as little as possible around it: any model, no budget, in good standing."""
    plan = plan or Plan("default")
    stands = standing or Standing(account)
    return Holder(
        Account(account, org, plan.id, 0.0),
        Organisation(org, org, 0.0),
        plan,
        stands,
        action=stands.action,
    )


class MemoryAccounts:
    """The door `Accounts` over a dict of keys; one thread at a time.

    Args:
        holders: Key to holder. Change it at will; `standings` holds those of users behind resellers, by holder id;
            `taken` is what is taken of each (holder, measure, window, start).
    """

    def __init__(self, holders: Mapping[str, Holder]) -> None:
        self.holders = dict(holders)
        self.standings: dict[str, Standing] = {}
        self.taken: Counter[Meter] = Counter()

    def authenticate(self, key: str, now: float) -> Holder | None:
        """Return the holder of a key."""
        return self.holders.get(key)

    def on_behalf(self, holder: Holder, user: str, now: float) -> Holder | None:
        """Return the holder for a user behind a reseller."""
        rules = holder.account.sub_accounts
        if rules is None:
            return holder
        if not user:
            return None if rules.required else holder
        standing = self.standings.get(f"{holder.account.id}/{user}") or Standing(
            holder.account.id, user
        )
        return replace(
            holder, user=user, reseller=holder, standing=standing, action=standing.at(now)
        )

    def reserve(
        self, holder: Holder, *, requests: int, tokens: int, cost: int, now: float
    ) -> Taken | Refusal:
        """Take amounts out of every budget, or out of none."""
        amounts = {Measure.REQUESTS: requests, Measure.TOKENS: tokens, Measure.COST: cost}
        took: list[tuple[Meter, Measure, int]] = []
        owners = (holder,) if holder.reseller is None else (holder, holder.reseller)
        for owner in owners:
            for budget in owner.budgets:
                start, end = span(budget.window, now)
                meter = (owner.id, budget.measure, budget.window, start)
                left = budget.limit - self.taken[meter]
                if left < amounts[budget.measure] > 0:
                    return Refusal(owner.id, end - now, budget, max(left, 0))
                took.append((meter, budget.measure, amounts[budget.measure]))
        for meter, _, amount in took:
            self.taken[meter] += amount
        return Taken(self.taken, took)

    def settle(self, reservation: Reservation, *, tokens: int, cost: int) -> None:
        """Charge what a request really took."""
        reservation.settle(tokens=tokens, cost=cost)

    def release(self, reservation: Reservation) -> None:
        """Give everything back."""
        reservation.release()

    def draw(self, use: DeclaredUse, *, requests: int, now: float) -> bool:
        """Count requests against a declared use's volume."""
        meter = (use.account, use.id, Window.LIFE, 0)
        if use.volume is not None and self.taken[meter] + requests > use.volume:
            return False
        self.taken[meter] += requests
        return True
