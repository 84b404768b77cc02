"""What tests of the guard's state share beside fixtures: a clock, an account to spend from, child processes."""

import os
import time
from collections.abc import Callable

from limbeck.guard.account import Budget, Holder, Measure, Plan, SubAccounts, Window
from limbeck.guard.accounts import Accounts, Refusal, Reservation
from limbeck.guard.state.home import State
from limbeck.guard.state.keys import create_key
from limbeck.guard.state.organisations import create_organisation
from limbeck.guard.state.plans import write_plan
from limbeck.guard.state.register import open_account

T0 = 1_790_000_000.0
"""A Monday in September 2026, 20 s past a minute."""
MakeState = Callable[..., State]


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = T0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def furnish(
    state: State, *budgets: Budget, account: str = "acme", sub_accounts: SubAccounts | None = None
) -> str:
    """Make an organisation, a plan, an account and a key; return the key."""
    with state.change("test") as change:
        create_organisation(change, f"org-{account}", domains=[f"{account}.example"])
        write_plan(change, Plan(f"plan-{account}", budgets=budgets))
        open_account(
            change,
            org=f"org-{account}",
            plan_id=f"plan-{account}",
            id=account,
            sub_accounts=sub_accounts,
        )
        return create_key(change, state.pepper, account).secret


def per(measure: str, window: str, limit: int) -> Budget:
    return Budget(Measure(measure), Window(window), limit)


def fork(work: Callable[[], None]) -> int:
    """Run something in a child process; return its id. It ends without pytest's own endings."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001
            import traceback

            traceback.print_exc()
            os._exit(1)
    return child


def attempt(
    accounts: Accounts, holder: Holder | None, now: float, *, tokens: int = 0, cost: int = 0
) -> Reservation | Refusal:
    assert holder is not None
    return accounts.reserve(holder, requests=1, tokens=tokens, cost=cost, now=now)


def take(
    accounts: Accounts, holder: Holder | None, now: float, *, tokens: int = 0, cost: int = 0
) -> Reservation:
    got = attempt(accounts, holder, now, tokens=tokens, cost=cost)
    assert not isinstance(got, Refusal), got
    return got


def refused(
    accounts: Accounts, holder: Holder | None, now: float, *, tokens: int = 0, cost: int = 0
) -> Refusal:
    got = attempt(accounts, holder, now, tokens=tokens, cost=cost)
    assert isinstance(got, Refusal)
    return got


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, f"waited {seconds:g} s for {what}"
        time.sleep(0.01)
