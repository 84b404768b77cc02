"""What a person takes back stays taken back, whenever the keeper was killed."""

from collections.abc import Generator
from pathlib import Path

import pytest

from guardstate import Clock, furnish, per
from limbeck.guard import lifts
from limbeck.guard.decision import Action
from limbeck.guard.policy import load_policy
from limbeck.guard.state.home import State, init_state
from limbeck.guard.state.standings import restore
from limbeck.guard.watch import Watch
from tinytraffic import observation


@pytest.fixture
def state(tmp_path: Path) -> Generator[State]:
    opened = init_state(tmp_path / "guard", Clock())
    furnish(opened, per("requests", "day", 50))
    yield opened
    opened.close()


def accused(account: str) -> Watch:
    """A watch that accuses an account."""
    watch = Watch(load_policy(), secret=b"s")
    watch.observe(observation(account, 1.0, "hello there"))
    known = watch.accounts.peek(account)
    assert known is not None
    known.standing = Action.HOLD
    return watch


def standing(watch: Watch, account: str) -> Action:
    known = watch.accounts.peek(account)
    assert known is not None
    return known.standing


def take_back(state: State, account: str, user: str = "") -> None:
    with state.change("Ada Lovelace") as change:
        restore(change, account, "Ada Lovelace", user=user)


def test_a_restoring_reaches_the_watch_once(state: State) -> None:
    account = "acme"
    watch = accused(account)
    watch.lifted = lifts.newest(state)
    take_back(state, account)
    lifts.take_in(watch, lifts.since(state, watch.lifted))
    assert standing(watch, account) is Action.ALLOW
    assert lifts.since(state, watch.lifted) == []


def test_a_keeper_that_starts_from_a_snapshot_before_the_lift_lifts_again(state: State) -> None:
    account = "acme"
    watch = accused(account)
    watch.lifted = lifts.newest(state)
    snapshot = watch.snapshot()
    take_back(state, account)
    lifts.take_in(watch, lifts.since(state, watch.lifted))
    later = watch.snapshot()
    for data in (snapshot, later):
        back = Watch(load_policy(), secret=b"s")
        back.restore(data)
        assert back.lifted is not None
        lifts.take_in(back, lifts.since(state, back.lifted))
        assert standing(back, account) is Action.ALLOW
        assert back.lifted == watch.lifted


def test_an_accusation_after_the_lift_survives_a_restart(state: State) -> None:
    account = "acme"
    take_back(state, account)
    watch = accused(account)
    watch.lifted = lifts.newest(state)
    back = Watch(load_policy(), secret=b"s")
    back.restore(watch.snapshot())
    assert back.lifted is not None
    lifts.take_in(back, lifts.since(state, back.lifted))
    assert standing(back, account) is Action.HOLD


def test_a_user_behind_a_reseller_is_lifted_by_the_watchs_name_and_strangers_are_passed_over(
    state: State,
) -> None:
    account = "acme"
    watch = accused(f"{account}/kim")
    watch.lifted = lifts.newest(state)
    take_back(state, account)
    take_back(state, account, "kim")
    assert [name for _, name in lifts.since(state, watch.lifted)] == [account, f"{account}/kim"]
    lifts.take_in(watch, lifts.since(state, watch.lifted))
    assert standing(watch, f"{account}/kim") is Action.ALLOW
