"""The accounts as a worker holds them: keys, budgets, and what happens when something is gone."""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dbservers import Postgres, Redis
from guardstate import (
    T0,
    Clock,
    MakeState,
    attempt,
    fork,
    furnish,
    per,
    refused,
    take,
    wait_for,
)
from limbeck.errors import StateError
from limbeck.guard.account import Measure, SubAccounts, UseKind, Window
from limbeck.guard.accounts import Lack, Refusal
from limbeck.guard.decision import Action
from limbeck.guard.sanction import Mode, Proposal, SanctionRules
from limbeck.guard.state.home import State, open_state
from limbeck.guard.state.keys import revoke_key
from limbeck.guard.state.leases import Grant, LeaseStore, Meter, Want
from limbeck.guard.state.plans import write_plan
from limbeck.guard.state.shared import SharedAccounts
from limbeck.guard.state.standings import propose, vouch
from limbeck.guard.state.stores import open_store
from limbeck.guard.state.uses import approve_use, declare_use

MINUTE = int(T0 // 60) * 60
ENFORCE = SanctionRules(mode=Mode.ENFORCE)


class Unreachable:
    """A store that can be cut off, before it hears a call or before its answer to a grant is heard."""

    def __init__(self, store: LeaseStore) -> None:
        self._store, self.cut, self.deaf = store, False, False

    def __getattr__(self, name: str) -> object:
        if self.cut:
            raise StateError("the store is cut off")
        return getattr(self._store, name)

    def grant(self, worker: str, wants: Sequence[Want]) -> list[Grant]:
        if self.cut:
            raise StateError("the store is cut off")
        granted = self._store.grant(worker, wants)
        if self.deaf:
            raise StateError("the connection broke during the commit")
        return granted


@contextmanager
def opened(
    state: State, steady: Clock | None = None, store: LeaseStore | None = None
) -> Generator[SharedAccounts]:
    accounts = SharedAccounts(state, clock=steady or Clock(0.0), store=store)
    yield accounts
    accounts.close()


def spent(state: State, holder: str = "acme") -> dict[tuple[str, str, int], tuple[int, int]]:
    store = open_store(state)
    found = store.spent(holder)
    store.shut()
    return {(m.measure, m.window, m.starts): amounts for m, amounts in found.items()}


def test_requests_are_admitted_up_to_the_budget_and_again_in_the_next_window(
    state: State, clock: Clock
) -> None:
    key = furnish(state, per("requests", "minute", 5))
    with opened(state) as accounts:
        holder = accounts.authenticate(key, T0)
        for _ in range(5):
            take(accounts, holder, T0)
        refusal = refused(accounts, holder, T0)
        assert refusal == Refusal(
            "acme", MINUTE + 60 - T0, per("requests", "minute", 5), 0, Lack.BUDGET
        )
        take(accounts, holder, MINUTE + 60.0)
    assert spent(state) == {
        ("requests", "minute", MINUTE): (5, 0),
        ("requests", "minute", MINUTE + 60): (1, 0),
    }


def test_tokens_and_cost_are_charged_as_settled_and_freed_as_released(state: State) -> None:
    key = furnish(state, per("tokens", "day", 1000), per("cost", "month", 10_000))
    with opened(state) as accounts:
        holder = accounts.authenticate(key, T0)
        first = take(accounts, holder, T0, tokens=600, cost=6000)
        assert refused(accounts, holder, T0, tokens=600, cost=10).budget == per(
            "tokens", "day", 1000
        )
        accounts.settle(first, tokens=100, cost=1000)
        accounts.settle(first, tokens=100, cost=1000)
        accounts.release(first)
        second = take(accounts, holder, T0, tokens=900, cost=9000)
        accounts.release(second)
        accounts.release(second)
        take(accounts, holder, T0, tokens=900, cost=9000).settle(tokens=950, cost=9500)
        assert refused(accounts, holder, T0, tokens=1, cost=0).left == 0
    month = int(datetime(2026, 9, 1, tzinfo=UTC).timestamp())
    assert spent(state) == {
        ("tokens", "day", int(T0 // 86400) * 86400): (1050, 0),
        ("cost", "month", month): (10_500, 0),
    }


def test_a_budget_of_nothing_admits_nothing(state: State) -> None:
    key = furnish(state, per("requests", "day", 0))
    with opened(state) as accounts:
        assert refused(accounts, accounts.authenticate(key, T0), T0).left == 0


def test_a_request_that_no_budget_counts_is_admitted(state: State) -> None:
    key = furnish(state)
    with opened(state) as accounts:
        take(accounts, accounts.authenticate(key, T0), T0, tokens=10**9, cost=10**9)


def test_a_request_that_no_budget_counts_needs_no_counters(state: State) -> None:
    key = furnish(state)
    steady = Clock(0.0)
    with opened(state, steady) as accounts:
        holder = accounts.authenticate(key, T0)
        steady.now = 20.0
        take(accounts, holder, T0, tokens=1)


def test_a_grant_whose_answer_was_lost_is_given_back(state: State) -> None:
    key = furnish(state, per("requests", "day", 160))
    steady = Clock(0.0)
    store = Unreachable(open_store(state))
    accounts = SharedAccounts(state, clock=steady, store=store)  # pyright: ignore[reportArgumentType]
    holder = accounts.authenticate(key, T0)
    store.deaf = True
    assert refused(accounts, holder, T0).lack is Lack.STATE
    store.deaf = False
    assert spent(state) == {("requests", "day", int(T0 // 86400) * 86400): (0, 10)}
    steady.now += 2.0
    accounts.work()
    assert spent(state) == {("requests", "day", int(T0 // 86400) * 86400): (0, 0)}
    take(accounts, holder, T0)
    accounts.close()


def test_two_workers_admit_together_what_one_budget_holds(state: State) -> None:
    key = furnish(state, per("requests", "day", 100))
    with opened(state) as one, opened(state) as two:
        admitted = 0
        for turn in range(300):
            accounts = (one, two)[turn % 2]
            holder = accounts.authenticate(key, T0)
            admitted += not isinstance(attempt(accounts, holder, T0), Refusal)
        assert 90 <= admitted <= 100
        assert refused(one, one.authenticate(key, T0), T0).retry_after > 0
    assert spent(state) == {("requests", "day", int(T0 // 86400) * 86400): (admitted, 0)}


def test_what_lies_idle_in_one_worker_comes_back_for_the_other(state: State) -> None:
    key = furnish(state, per("requests", "day", 10))
    steady = Clock(0.0)
    with opened(state, steady) as one, opened(state, steady) as two:
        one_holder, two_holder = one.authenticate(key, T0), two.authenticate(key, T0)
        big = replace(one_holder, plan=replace(one_holder.plan)) if one_holder else None
        held = one.reserve(big, requests=9, tokens=0, cost=0, now=T0) if big else None
        assert held is not None
        assert not isinstance(held, Refusal)
        take(two, two_holder, T0)
        assert 0 < refused(two, two_holder, T0).retry_after <= 1.0
        held.release()
        steady.now += 5.0
        one.work()
        two.work()
        for _ in range(9):
            take(two, two_holder, T0)
        assert refused(two, two_holder, T0).left == 0


def test_a_clock_that_jumps_spends_each_window_once(state: State) -> None:
    key = furnish(state, per("requests", "minute", 3))
    with opened(state) as accounts:
        holder = accounts.authenticate(key, T0)
        admitted: Counter[int] = Counter()
        for step in (0, -600, 0, 86400 * 45, 0, -600, 86400 * 45):
            for _ in range(2):
                admitted[step] += not isinstance(attempt(accounts, holder, T0 + step), Refusal)
        assert admitted == {0: 3, -600: 3, 86400 * 45: 3}


def test_a_plan_with_another_limit_counts_on_from_what_was_spent(state: State) -> None:
    key = furnish(state, per("requests", "day", 2))
    steady = Clock(0.0)
    with opened(state, steady) as accounts:
        holder = accounts.authenticate(key, T0)
        take(accounts, holder, T0)
        take(accounts, holder, T0)
        refused(accounts, holder, T0)
        assert holder is not None
        with state.change("test") as change:
            write_plan(
                change, replace(holder.plan, budgets=(per("requests", "day", 3),)), replace=True
            )
        accounts.refresh()
        holder = accounts.authenticate(key, T0)
        take(accounts, holder, T0)
        assert refused(accounts, holder, T0).budget == per("requests", "day", 3)


def test_a_user_behind_a_reseller_spends_both_budgets_and_stands_alone(state: State) -> None:
    rules = SubAccounts((per("requests", "day", 2),), required=True)
    key = furnish(state, per("requests", "day", 3), account="shop", sub_accounts=rules)
    with state.change("policy") as change:
        propose(change, Proposal("shop", Action.HOLD, "c1", "ab", user="eve"), ENFORCE)
    with opened(state) as accounts:
        shop = accounts.authenticate(key, T0)
        assert shop is not None
        assert accounts.on_behalf(shop, "", T0) is None
        for name in ("x" * 129, "\ud800", "a\0b", "a\nb"):
            assert accounts.on_behalf(shop, name, T0) is None
        eve, ann, bob = (accounts.on_behalf(shop, user, T0) for user in ("eve", "ann", "bob"))
        assert [h.action for h in (eve, ann, shop) if h] == [
            Action.HOLD,
            Action.ALLOW,
            Action.ALLOW,
        ]
        take(accounts, ann, T0)
        take(accounts, ann, T0)
        assert refused(accounts, ann, T0).holder == "shop/ann"
        take(accounts, bob, T0)
        assert refused(accounts, bob, T0).holder == "shop"
    day = int(T0 // 86400) * 86400
    assert spent(state, "shop") == {("requests", "day", day): (3, 0)}
    assert spent(state, "shop/ann") == {("requests", "day", day): (2, 0)}


def test_a_user_that_somebody_vouched_for_is_served_when_the_reseller_is_held(
    state: State,
) -> None:
    key = furnish(state, account="shop", sub_accounts=SubAccounts())
    with state.change("policy") as change:
        propose(change, Proposal("shop", Action.HOLD, "c1", "ab"), ENFORCE)
        vouch(change, "shop", "ann", "Ada Lovelace")
    with opened(state) as accounts:
        shop = accounts.authenticate(key, T0)
        assert shop is not None
        users = [accounts.on_behalf(shop, user, T0) for user in ("ann", "bob")]
        assert [h.action for h in (shop, *users) if h] == [Action.HOLD, Action.ALLOW, Action.HOLD]


def test_a_declared_use_covers_its_volume_over_all_workers(state: State) -> None:
    furnish(state)
    with state.change("test") as change:
        use = declare_use(change, "acme", UseKind.EVALUATION, starts=T0, expires=T0 + 10, volume=50)
        use = approve_use(change, use.id, "Ada Lovelace")
    with opened(state) as one, opened(state) as two:
        covered = sum((one, two)[n % 2].draw(use, requests=1, now=T0) for n in range(100))
    assert 45 <= covered <= 50
    assert spent(state, f"use:{use.id}") == {("requests", "life", 0): (covered, 0)}


def test_a_revoked_key_opens_nothing_after_one_refresh_in_every_worker(state: State) -> None:
    key = furnish(state)
    with SharedAccounts(state) as one, SharedAccounts(state) as two:
        assert one.authenticate(key, T0) is not None
        with state.change("test") as change:
            revoke_key(change, key[3:13])
        for accounts in (one, two):
            wait_for(lambda a=accounts: a.authenticate(key, T0 + 1) is None, "revocation", 5.0)


@pytest.mark.parametrize("when", ["refuse", "allow"])
def test_when_the_counters_are_gone_the_setting_decides_and_debts_are_paid_later(
    make_state: MakeState, clock: Clock, when: str
) -> None:
    state = make_state(clock, budgets_when_gone=when)
    key = furnish(state, per("requests", "day", 100), per("tokens", "day", 10**6))
    steady = Clock(0.0)
    switch = Unreachable(open_store(state))
    accounts = SharedAccounts(state, clock=steady, store=switch)  # pyright: ignore[reportArgumentType]
    holder = accounts.authenticate(key, T0)
    take(accounts, holder, T0, tokens=10).settle(tokens=10, cost=0)
    switch.cut = True
    steady.now += 1.0
    admitted = 1
    for _ in range(50):
        got = attempt(accounts, holder, T0, tokens=10)
        if isinstance(got, Refusal):
            assert (got.lack, got.budget) == (Lack.STATE, None)
        else:
            got.settle(tokens=10, cost=0)
            admitted += 1
    assert admitted == (51 if when == "allow" else 6)  # its lease held a sixteenth of 100
    steady.now += 2.0
    accounts.work()
    assert not accounts.ready
    switch.cut = False
    steady.now += 2.0
    accounts.work()
    assert accounts.ready
    take(accounts, holder, T0, tokens=10).settle(tokens=10, cost=0)
    accounts.close()
    day = int(T0 // 86400) * 86400
    assert spent(state) == {
        ("requests", "day", day): (admitted + 1, 0),
        ("tokens", "day", day): (10 * (admitted + 1), 0),
    }


def test_an_account_first_seen_while_the_counters_are_gone_pays_afterwards(
    make_state: MakeState, clock: Clock
) -> None:
    state = make_state(clock, budgets_when_gone="allow")
    key = furnish(state, per("requests", "day", 2))
    steady = Clock(0.0)
    switch = Unreachable(open_store(state))
    accounts = SharedAccounts(state, clock=steady, store=switch)  # pyright: ignore[reportArgumentType]
    holder = accounts.authenticate(key, T0)
    switch.cut = True
    for _ in range(4):
        take(accounts, holder, T0)
    switch.cut = False
    steady.now += 2.0
    accounts.work()
    assert refused(accounts, holder, T0).left == 0
    accounts.close()
    assert spent(state) == {("requests", "day", int(T0 // 86400) * 86400): (4, 0)}


def test_leases_are_not_spent_past_their_time_when_nothing_is_heard(
    make_state: MakeState, clock: Clock
) -> None:
    state = make_state(clock, lease_seconds=10.0)
    key = furnish(state, per("requests", "day", 1000))
    steady = Clock(0.0)
    with opened(state, steady) as accounts:
        holder = accounts.authenticate(key, T0)
        take(accounts, holder, T0)
        steady.now = 9.9
        take(accounts, holder, T0)
        steady.now = 10.0
        assert refused(accounts, holder, T0).lack is Lack.STATE
        accounts.work()
        take(accounts, holder, T0)


@pytest.mark.parametrize("when", ["refuse", "allow"])
def test_accounts_that_are_too_old_are_refused_or_served_as_the_setting_says(
    make_state: MakeState, clock: Clock, when: str
) -> None:
    state = make_state(clock, accounts_when_gone=when, stale_seconds=30.0)
    key = furnish(state)
    steady = Clock(0.0)
    with opened(state, steady) as accounts:
        steady.now = 30.0
        assert accounts.authenticate(key, T0) is not None
        steady.now = 30.1
        if when == "allow":
            assert accounts.authenticate(key, T0) is not None
        else:
            with pytest.raises(StateError, match="30 s ago"):
                accounts.authenticate(key, T0)
        accounts.refresh()
        assert accounts.authenticate(key, T0) is not None


def test_a_worker_that_was_given_up_joins_again_and_nothing_is_spent_twice(
    make_state: MakeState, clock: Clock
) -> None:
    state = make_state(clock, lost_seconds=60.0)
    key = furnish(state, per("requests", "day", 160))
    steady, other = Clock(0.0), Clock(0.0)
    with opened(state, steady) as accounts, opened(state, other) as watcher:
        holder = accounts.authenticate(key, T0)
        for _ in range(3):
            take(accounts, holder, T0)
        for now in (0.0, 30.0, 61.0):  # the worker is stopped, another one watches it
            other.now = now
            watcher.work()
        steady.now = 61.0
        assert refused(accounts, holder, T0).lack is Lack.STATE
        accounts.work()
        take(accounts, holder, T0)
    assert spent(state) == {("requests", "day", int(T0 // 86400) * 86400): (4, 0)}


def test_a_database_server_that_is_killed_and_comes_back_is_used_again(
    make_state: MakeState,
) -> None:
    server = Postgres()
    server.start()
    try:
        clock = Clock()
        state = make_state(clock, database=server.url)
        key = furnish(state, per("requests", "day", 1600))
        _outage(state, key, server)
    finally:
        server.stop()


def test_a_counter_server_that_is_killed_and_comes_back_has_forgotten_nothing(
    make_state: MakeState, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = Redis(tmp_path_factory.mktemp("killed"))
    server.start()
    try:
        clock = Clock()
        state = make_state(clock, counters=server.url)
        key = furnish(state, per("requests", "day", 1600))
        _outage(state, key, server)
    finally:
        server.stop()


def test_counters_that_forgot_everything_are_joined_anew(
    make_state: MakeState, clock: Clock, redis_url: str
) -> None:
    import redis

    state = make_state(clock, counters=redis_url)
    key = furnish(state, per("requests", "day", 160))
    steady = Clock(0.0)
    with opened(state, steady) as accounts:
        holder = accounts.authenticate(key, T0)
        take(accounts, holder, T0)
        client = redis.Redis.from_url(redis_url)
        client.flushdb()
        client.close()
        steady.now += 2.0
        accounts.work()
        take(accounts, holder, T0)
    assert spent(state) == {("requests", "day", int(T0 // 86400) * 86400): (1, 0)}


def _outage(state: State, key: str, server: Postgres | Redis) -> None:
    """Spend, kill the server, meet the refusal, start it, spend on; every admitted request is charged once."""
    steady = Clock(0.0)
    accounts = SharedAccounts(state, clock=steady)
    holder = accounts.authenticate(key, T0)
    for _ in range(150):
        take(accounts, holder, T0)
    server.kill()
    admitted = 150
    while not isinstance(got := attempt(accounts, holder, T0), Refusal):
        admitted += 1
    assert got.lack is Lack.STATE
    assert admitted < 300
    steady.now += 1.0
    accounts.work()
    assert accounts.authenticate(key, T0) is not None
    server.start()
    steady.now += 2.0
    accounts.work()
    take(accounts, holder, T0)
    accounts.close()
    assert spent(state) == {("requests", "day", int(T0 // 86400) * 86400): (admitted + 1, 0)}


def test_workers_in_processes_of_their_own_admit_exactly_the_budget(
    state: State, tmp_path: Path
) -> None:
    key = furnish(state, per("requests", "day", 3000), per("tokens", "day", 10**7))

    together = multiprocessing.Barrier(3)

    def work(n: int) -> None:
        mine = open_state(state.folder, Clock())
        admitted = 0
        with SharedAccounts(mine) as accounts:
            together.wait(20)
            while True:
                time.sleep(0.0001)  # a pause in which others are served
                got = attempt(accounts, accounts.authenticate(key, T0), T0, tokens=100)
                if isinstance(got, Refusal):
                    if got.left == 0 and got.retry_after > 10:
                        break
                    time.sleep(0.02)
                else:
                    got.settle(tokens=50, cost=0)
                    admitted += 1
        (tmp_path / f"admitted{n}").write_text(str(admitted), "ascii")

    children = [fork(lambda n=n: work(n)) for n in range(3)]
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    admitted = [int((tmp_path / f"admitted{n}").read_text("ascii")) for n in range(3)]
    assert sum(admitted) == 3000
    assert all(admitted)
    day = int(T0 // 86400) * 86400
    store = open_store(state)
    assert store.spent("acme") == {
        Meter("acme", Measure.REQUESTS, Window.DAY, day): (3000, 0),
        Meter("acme", Measure.TOKENS, Window.DAY, day): (150_000, 0),
    }
    assert store.beats() == {}
    store.shut()
