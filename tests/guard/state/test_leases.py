import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import LostError
from limbeck.guard.account import Measure, Window
from limbeck.guard.state.leases import LeaseStore, Meter, Want, share

REQUESTS = Meter("acme", Measure.REQUESTS, Window.MINUTE, 1_790_000_040)
COST = Meter("acme", Measure.COST, Window.MONTH, 1_788_220_800)
AMOUNTS = st.integers(min_value=0, max_value=10**12)


@given(left=AMOUNTS, need=st.integers(min_value=1, max_value=10**12))
def test_a_share_holds_the_need_and_never_more_than_is_left(left: int, need: int) -> None:
    got = share(left, need)
    assert got == 0 if need > left else need <= got <= left
    assert got <= max(need, left // 16)


def test_leases_never_add_up_to_more_than_the_limit(store: LeaseStore) -> None:
    limit, granted = 1000, 0
    for worker in ("a", "b", "c"):
        store.join(worker, "host")
    while True:
        round_ = [store.grant(w, [Want(REQUESTS, limit, 7)])[0] for w in ("a", "b", "c")]
        granted += sum(grant.amount for grant in round_)
        if not any(grant.amount for grant in round_):
            break
    assert limit - 7 < granted <= limit
    assert store.spent("acme") == {REQUESTS: (0, granted)}
    assert round_[0].left == limit - granted
    assert round_[0].elsewhere == granted


def test_many_at_once_share_one_budget_exactly(store: LeaseStore) -> None:
    limit, got = 200, list[int]()

    def lease(worker: str) -> None:
        store.join(worker, "host")
        while amount := store.grant(worker, [Want(REQUESTS, limit, 1)])[0].amount:
            got.append(amount)

    threads = [threading.Thread(target=lease, args=[f"w{n}"]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == limit


def test_of_what_is_wanted_together_all_is_granted_or_nothing(store: LeaseStore) -> None:
    store.join("a", "host")
    wants = [Want(REQUESTS, 10, 1), Want(COST, 100, 101)]
    assert [grant.amount for grant in store.grant("a", wants)] == [0, 0]
    assert all(taken == (0, 0) for taken in store.spent("acme").values())
    wants = [Want(REQUESTS, 10, 1), Want(COST, 100, 100)]
    assert [grant.amount for grant in store.grant("a", wants)] == [1, 100]


def test_a_lease_grows_and_only_that_one(store: LeaseStore) -> None:
    store.join("a", "host")
    [first] = store.grant("a", [Want(REQUESTS, 100, 5)])
    [second] = store.grant("a", [Want(REQUESTS, 100, 5)])
    [more] = store.grant("a", [Want(REQUESTS, 100, 10, first.lease)])
    assert first.lease != second.lease
    assert more.lease == first.lease
    store.close("a", {first.lease: 1})
    assert store.spent("acme") == {REQUESTS: (1, second.amount)}
    with pytest.raises(LostError):
        store.grant("a", [Want(REQUESTS, 100, 1, first.lease)])


def test_what_was_charged_stays_taken_and_closing_twice_changes_nothing(store: LeaseStore) -> None:
    store.join("a", "host")
    [lease] = store.grant("a", [Want(REQUESTS, 100, 50)])
    store.report("a", {lease.lease: 20})
    assert store.spent("acme") == {REQUESTS: (20, 30)}
    for _ in range(2):
        store.close("a", {lease.lease: 33})
        assert store.spent("acme") == {REQUESTS: (33, 0)}
    store.leave("a", {lease.lease: 33}, forgive=False)
    assert store.spent("acme") == {REQUESTS: (33, 0)}


@pytest.mark.parametrize(("forgive", "charged"), [(True, 20), (False, 50)])
def test_of_a_lost_worker_what_was_reported_or_all_is_charged(
    store: LeaseStore, forgive: bool, charged: int
) -> None:
    store.join("a", "host")
    [lease] = store.grant("a", [Want(REQUESTS, 100, 50)])
    store.report("a", {lease.lease: 20})
    store.leave("a", {}, forgive=forgive)
    assert store.spent("acme") == {REQUESTS: (charged, 0)}
    assert store.beats() == {}
    with pytest.raises(LostError):
        store.report("a", {})
    with pytest.raises(LostError):
        store.grant("a", [Want(REQUESTS, 100, 1)])


def test_a_complete_report_ends_leases_whose_grant_was_never_heard_of(store: LeaseStore) -> None:
    store.join("a", "host")
    [known] = store.grant("a", [Want(REQUESTS, 100, 10)])
    store.grant("a", [Want(COST, 100, 40)])
    store.report("a", {known.lease: 4}, complete=True)
    assert store.spent("acme") == {COST: (0, 0), REQUESTS: (4, 6)}


def test_debts_are_charged_past_the_limit(store: LeaseStore) -> None:
    store.charge({REQUESTS: 7, COST: 3})
    store.charge({REQUESTS: 5})
    assert store.spent("acme") == {COST: (3, 0), REQUESTS: (12, 0)}
    store.join("a", "host")
    [denied] = store.grant("a", [Want(REQUESTS, 10, 1)])
    assert (denied.amount, denied.left) == (0, -2)


def test_every_report_is_a_beat(store: LeaseStore) -> None:
    store.join("a", "host")
    store.join("b", "host")
    store.report("a", {})
    store.report("a", {})
    assert store.beats() == {"a": 2, "b": 0}


def test_windows_that_ended_long_ago_are_forgotten_once_a_new_one_began(store: LeaseStore) -> None:
    store.join("a", "host")
    [old] = store.grant("a", [Want(REQUESTS, 100, 10)])
    store.grant("a", [Want(COST, 100, 10)])
    store.close("a", {old.lease: 10})
    later = Meter("acme", Measure.REQUESTS, Window.MINUTE, REQUESTS.starts + 3600)
    store.grant("a", [Want(later, 100, 10)])
    store.prune(later.starts)
    assert set(store.spent("acme")) == {later, COST}
