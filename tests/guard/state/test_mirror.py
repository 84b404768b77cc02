import random
from dataclasses import replace

import pytest

from guardstate import T0, Clock, furnish, per
from limbeck.errors import StateError
from limbeck.guard.account import BlockKind, Plan, SubAccounts, UseKind
from limbeck.guard.decision import Action
from limbeck.guard.sanction import Mode, Proposal, SanctionRules
from limbeck.guard.state import mirror as module
from limbeck.guard.state.blocks import block, blocks, lift
from limbeck.guard.state.database import Database
from limbeck.guard.state.home import State
from limbeck.guard.state.housekeeping import forget_changes
from limbeck.guard.state.keys import create_key, keys, revoke_key
from limbeck.guard.state.mirror import Mirror
from limbeck.guard.state.organisations import identify_organisation
from limbeck.guard.state.plans import write_plan
from limbeck.guard.state.register import move_account
from limbeck.guard.state.standings import propose, restore
from limbeck.guard.state.uses import approve_use, declare_use
from limbeck.guard.state.writing import Writing

ADA = "Ada Lovelace"
ENFORCE = SanctionRules(mode=Mode.ENFORCE)


def test_a_mirror_that_followed_every_change_equals_one_that_read_everything(state: State) -> None:
    secrets = [furnish(state, account=name) for name in ("a", "b")]
    secrets.append(furnish(state, account="shop", sub_accounts=SubAccounts()))
    follower = Mirror(state.database, state.pepper)
    follower.refresh()
    dice = random.Random(3)  # noqa: S311
    for step in range(40):
        with state.change("test") as change:
            _change_something(change, state, dice, step)
        assert follower.refresh()
        fresh = Mirror(state.database, state.pepper)
        fresh.refresh()
        for text in secrets:
            one, other = follower.find(text, T0), fresh.find(text, T0)
            assert one == other
            if one is not None and one.account.sub_accounts is not None:
                assert follower.find_user(one, "ann", T0) == fresh.find_user(one, "ann", T0)
        assert follower.epoch == fresh.epoch
    assert not follower.refresh()


def _change_something(change: Writing, state: State, dice: random.Random, step: int) -> None:
    account = dice.choice(["a", "b", "shop"])
    match dice.randrange(8):
        case 0:
            create_key(change, state.pepper, account)
        case 1:
            spare = [k for k in keys(change.connection, account) if k.opens(T0)][1:]
            if spare:
                revoke_key(change, spare[0].id)
        case 2:
            write_plan(
                change, Plan("shared", budgets=(per("requests", "day", step),)), replace=True
            )
            move_account(change, account, "shared")
        case 3:
            action = dice.choice(list(Action))
            propose(
                change,
                Proposal(account, action, "c", f"e{step}", user=dice.choice(["", "ann"])),
                ENFORCE,
            )
        case 4:
            restore(change, account, ADA, user=dice.choice(["", "ann"]))
        case 5:
            use = declare_use(change, account, UseKind.RESEARCH, starts=T0 - 1, expires=T0 + 1)
            approve_use(change, use.id, ADA)
        case 6:
            identify_organisation(change, f"org-{account}", payment=[f"p{step}"])
            block(change, BlockKind.PAYMENT, f"p{step}", by=ADA)
        case _:
            for entry in blocks(change.connection):
                if entry.lifted is None:
                    lift(change, entry.id, ADA)


def test_a_mirror_far_behind_reads_everything_again(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = furnish(state)
    late = Mirror(state.database, state.pepper)
    late.refresh()
    monkeypatch.setattr(module, "KEPT_EPOCHS", 3)
    monkeypatch.setattr("limbeck.guard.state.housekeeping.KEPT_EPOCHS", 3)
    with state.change("test") as change:
        revoke_key(change, text[3:13])
    for _ in range(5):
        with state.change("test") as change:
            change.touch("plan", "plan-acme")
    forget_changes(state.database)
    late.refresh()
    assert late.find(text, T0) is None


def test_a_restored_backup_is_read_whole(state: State) -> None:
    text = furnish(state)
    mirror = Mirror(state.database, state.pepper)
    mirror.refresh()
    mirror.epoch += (
        100  # what this mirror saw of a database that was then put back to an older copy
    )
    assert mirror.refresh()
    assert mirror.find(text, T0) is not None


def test_a_lookup_needs_no_database(state: State) -> None:
    text = furnish(state)
    mirror = Mirror(state.database, state.pepper)
    mirror.refresh()
    state.database.engine.dispose()
    (state.folder / "state.db").rename(state.folder / "gone.db")
    (state.folder / "state.db").mkdir()
    with pytest.raises(StateError):
        mirror.refresh()
    holder = mirror.find(text, T0)
    assert holder is not None
    assert mirror.find(text, T0) is holder


def test_a_clock_that_steps_over_an_expiry_and_back_is_obeyed_both_ways(
    state: State, clock: Clock
) -> None:
    furnish(state)
    with state.change("test") as change:
        text = create_key(change, state.pepper, "acme", expires=T0 + 10).secret
    mirror = Mirror(state.database, state.pepper)
    mirror.refresh()
    opens = [mirror.find(text, T0 + t) is not None for t in (0, 9.9, 10, 100, 5, 10, 0)]
    assert opens == [True, True, False, False, True, False, True]


def test_the_same_on_every_database(database: Database, state: State) -> None:
    elsewhere = replace(state, database=database)
    text = furnish(elsewhere, per("requests", "day", 5))
    mirror = Mirror(database, state.pepper)
    assert mirror.refresh()
    holder = mirror.find(text, T0)
    assert holder is not None
    assert (holder.plan.budgets, len(mirror)) == ((per("requests", "day", 5),), 1)
    with elsewhere.change("test") as change:
        revoke_key(change, text[3:13])
    assert mirror.refresh()
    assert mirror.find(text, T0) is None
