"""The door between the data path and the accounts: who is this key, and may they spend?

Every call is synchronous and answers from memory, except that `reserve` and `draw` may take one transaction of the database
when the worker's share of a budget is used up.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from limbeck.guard.account import Budget, DeclaredUse, Holder


class Lack(StrEnum):
    """Why a reservation was refused: the budget is spent, or the state behind it cannot be reached."""

    BUDGET = "budget"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not admitted now.

    `budget` names measure, window and limit, `holder` whose it is (a user's own, or the reseller's), `left` what is
    left of it, `retry_after` the seconds until it may be worth asking again. With `Lack.STATE`, `budget` is None and the
    gateway should answer 503, not 429.
    """

    holder: str
    retry_after: float
    budget: Budget | None = None
    left: int = 0
    lack: Lack = Lack.BUDGET


class Reservation(Protocol):
    """What a request has taken out of its budgets. The first `settle` or `release` counts, later ones change nothing."""

    def settle(self, *, tokens: int, cost: int) -> None:
        """Charge what the request really took, and give back the rest."""
        ...

    def release(self) -> None:
        """Give everything back, the request included."""
        ...


class Accounts(Protocol):
    """What the data path asks of the accounts."""

    def authenticate(self, key: str, now: float) -> Holder | None:
        """Return whose key this is, or None if it opens nothing.

        A key of a sanctioned account does open: look at `Holder.action`.

        Raises:
            StateError: The accounts are older than the operator allows, and the setting says to refuse then.
        """
        ...

    def on_behalf(self, holder: Holder, user: str, now: float) -> Holder | None:
        """Return the holder for a user behind a reseller.

        `user` is the request's field of that name. The holder itself comes back where the account is no reseller, or
        no user is named and none is required; None where one is required and not named, or cannot be named so:
        up to 128 printable characters.
        """
        ...

    def reserve(
        self, holder: Holder, *, requests: int, tokens: int, cost: int, now: float
    ) -> Reservation | Refusal:
        """Take amounts out of every budget of the holder (and of its reseller), or out of none.

        An amount of 0 is never too much, even where a budget was overdrawn by requests that took more than they reserved.

        Args:
            holder: From `authenticate` or `on_behalf`.
            requests: Usually 1. Charged at once: a request that was admitted counts.
            tokens: An upper bound, such as the prompt's tokens and `max_tokens`.
            cost: An upper bound, in millionths.
            now: Seconds since 1970 UTC; it decides the window.
        """
        ...

    def settle(self, reservation: Reservation, *, tokens: int, cost: int) -> None:
        """Charge what a request really took; the same as `reservation.settle`."""
        ...

    def release(self, reservation: Reservation) -> None:
        """Give everything back because nothing was served; the same as `reservation.release`."""
        ...

    def draw(self, use: DeclaredUse, *, requests: int, now: float) -> bool:
        """Count requests against a declared use's volume; False when it is used up, so that it covers them no longer."""
        ...
