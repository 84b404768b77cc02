from dataclasses import replace

import pytest

from limbeck.guard.account import (
    Budget,
    DeclaredUse,
    Holder,
    Measure,
    Plan,
    Standing,
    SubAccounts,
    UseKind,
    Window,
)
from limbeck.guard.accounts import Accounts, Refusal, Reservation
from limbeck.guard.decision import Action
from limbeck.guard.memory import MemoryAccounts, holder_of

PER_MINUTE = Budget(Measure.REQUESTS, Window.MINUTE, 2)
TOKENS = Budget(Measure.TOKENS, Window.DAY, 100)
PLAN = Plan("small", budgets=(PER_MINUTE, TOKENS))


@pytest.fixture
def accounts() -> MemoryAccounts:
    return MemoryAccounts({"k": holder_of("a", PLAN)})


def attempt(
    accounts: Accounts, holder: Holder | None, tokens: int = 0, now: float = 30.0
) -> Reservation | Refusal:
    assert holder is not None
    return accounts.reserve(holder, requests=1, tokens=tokens, cost=0, now=now)


def take(
    accounts: Accounts, holder: Holder | None, tokens: int = 0, now: float = 30.0
) -> Reservation:
    got = attempt(accounts, holder, tokens, now)
    assert not isinstance(got, Refusal)
    return got


def refused(
    accounts: Accounts, holder: Holder | None, tokens: int = 0, now: float = 30.0
) -> Refusal:
    got = attempt(accounts, holder, tokens, now)
    assert isinstance(got, Refusal)
    return got


def test_a_spent_budget_names_itself_and_says_when_to_come_back(accounts: MemoryAccounts) -> None:
    holder = accounts.authenticate("k", 0.0)
    take(accounts, holder)
    take(accounts, holder)
    refusal = refused(accounts, holder)
    assert refusal == Refusal("a", 30.0, PER_MINUTE, 0)
    take(accounts, holder, now=60.0)


def test_what_was_not_used_is_given_back(accounts: MemoryAccounts) -> None:
    holder = accounts.authenticate("k", 0.0)
    first = take(accounts, holder, tokens=90)
    assert refused(accounts, holder, tokens=90).budget == TOKENS
    accounts.settle(first, tokens=5, cost=0)
    accounts.settle(first, tokens=50, cost=0)
    second = take(accounts, holder, tokens=95)
    accounts.release(second)
    accounts.release(second)
    take(accounts, holder, tokens=95)


def test_a_user_behind_a_reseller_has_budgets_and_a_standing_of_their_own() -> None:
    reseller = holder_of("shop", Plan("p", budgets=(Budget(Measure.REQUESTS, Window.DAY, 3),)))
    rules = SubAccounts((Budget(Measure.REQUESTS, Window.DAY, 2),), required=True)
    reseller = replace(reseller, account=replace(reseller.account, sub_accounts=rules))
    accounts = MemoryAccounts({"k": reseller})
    accounts.standings["shop/eve"] = Standing("shop", "eve", Action.BLOCK)
    eve, ann = (accounts.on_behalf(reseller, user, 0.0) for user in ("eve", "ann"))
    assert eve is not None
    assert ann is not None
    assert (eve.action, ann.action, reseller.action) == (Action.BLOCK, Action.ALLOW, Action.ALLOW)
    assert accounts.on_behalf(reseller, "", 0.0) is None
    take(accounts, ann)
    take(accounts, ann)
    assert refused(accounts, ann).holder == "shop/ann"
    bob = accounts.on_behalf(reseller, "bob", 0.0)
    take(accounts, bob)
    assert refused(accounts, bob).holder == "shop"


def test_a_declared_use_covers_only_its_volume(accounts: MemoryAccounts) -> None:
    use = DeclaredUse("u", "a", UseKind.EVALUATION, 0.0, 10.0, volume=2, approved_by="Ada")
    assert accounts.draw(use, requests=2, now=0.0)
    assert not accounts.draw(use, requests=1, now=0.0)
