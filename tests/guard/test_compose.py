from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.guard.account import (
    Account,
    BlockEntry,
    BlockKind,
    DeclaredUse,
    Holder,
    Key,
    Organisation,
    Plan,
    Standing,
    SubAccounts,
    UseKind,
)
from limbeck.guard.compose import compose, concerns, for_user
from limbeck.guard.decision import Action

ORG = Organisation("acme", "Acme", 0.0, ("cafe",), ("shop.acme.example",))
PLAN = Plan("p")
TIME = st.integers(0, 20).map(float)
MAYBE = st.none() | TIME
KEYS = st.builds(
    Key,
    id=st.just("k"),
    account=st.just("a"),
    created=st.just(0.0),
    digest=st.just(b""),
    expires=MAYBE,
    revoked=MAYBE,
)
ACCOUNTS = st.builds(
    Account,
    id=st.just("a"),
    org=st.just("acme"),
    plan=st.just("p"),
    created=st.just(0.0),
    closed=MAYBE,
)
STANDINGS = st.builds(
    Standing, account=st.just("a"), action=st.sampled_from(list(Action)), expires=MAYBE
)
USES = st.builds(
    DeclaredUse,
    id=st.just("u"),
    account=st.just("a"),
    kind=st.just(UseKind.EVALUATION),
    starts=TIME,
    expires=TIME,
    approved_by=st.sampled_from([None, "Ada"]),
    withdrawn=MAYBE,
)
BLOCKS = st.builds(
    BlockEntry,
    id=st.just("b"),
    kind=st.just(BlockKind.ORG),
    value=st.sampled_from(["acme", "other"]),
    since=st.just(0.0),
    by=st.just("Ada"),
    expires=MAYBE,
    lifted=MAYBE,
)


@given(
    key=KEYS,
    account=ACCOUNTS,
    standing=STANDINGS,
    uses=st.lists(USES, max_size=2),
    blocks=st.lists(BLOCKS, max_size=2),
    now=TIME,
    other=st.floats(-5, 25),
)
def test_a_holder_is_the_same_at_every_time_at_which_it_says_it_is_true(
    key: Key,
    account: Account,
    standing: Standing,
    uses: list[DeclaredUse],
    blocks: list[BlockEntry],
    now: float,
    other: float,
) -> None:
    def at(time: float) -> Holder | None:
        return compose(key, account, ORG, PLAN, standing, uses=uses, blocks=blocks, now=time)

    holder = at(now)
    if holder is None:
        assert not key.opens(now) or (account.closed is not None and account.closed <= now)
        return
    assert holder.valid_from <= now < holder.valid_until
    if holder.valid_from <= other < holder.valid_until:
        assert at(other) == holder
    covered = holder.use_for("m", "e", now) is not None
    assert covered == any(use.covers("m", "e", now) for use in uses)
    blocked = any(entry.value == "acme" and entry.holds(now) for entry in blocks)
    assert holder.action == (Action.BLOCK if blocked else standing.at(now))


@pytest.mark.parametrize(
    ("kind", "value", "hit"),
    [
        (BlockKind.ORG, "acme", True),
        (BlockKind.ORG, "acm", False),
        (BlockKind.PAYMENT, "cafe", True),
        (BlockKind.PAYMENT, "caff", False),
        (BlockKind.DOMAIN, "shop.acme.example", True),
        (BlockKind.DOMAIN, "acme.example", True),
        (BlockKind.DOMAIN, "cme.example", False),
        (BlockKind.DOMAIN, "www.shop.acme.example", False),
    ],
)
def test_a_block_concerns_whoever_shares_the_owner(kind: BlockKind, value: str, hit: bool) -> None:
    assert concerns(BlockEntry("b", kind, value, 0.0, "Ada"), ORG) is hit


@given(
    shop=STANDINGS,
    own=STANDINGS,
    vouched=st.booleans(),
    now=TIME,
    other=st.floats(0, 25),
)
def test_a_user_is_judged_by_the_stricter_standing_or_alone_when_vouched_for(
    shop: Standing, own: Standing, vouched: bool, now: float, other: float
) -> None:
    account = Account("a", "acme", "p", 0.0, sub_accounts=SubAccounts())
    reseller = Holder(account, ORG, PLAN, shop, shop.at(now))
    own = replace(own, user="ann", vouched_by="Ada" if vouched else None)
    user = for_user(reseller, "ann", own, now)
    assert user.action == (own.at(now) if vouched else max(own.at(now), shop.at(now)))
    assert reseller.action == shop.at(now)
    assert user.id == "a/ann"
    if user.valid_from <= other < user.valid_until:
        again = for_user(replace(reseller, action=shop.at(other)), "ann", own, other)
        assert again.action == user.action


def test_a_blocked_owner_blocks_every_user_behind_it() -> None:
    entry = BlockEntry("b", BlockKind.ORG, "acme", 0.0, "Ada")
    account = Account("a", "acme", "p", 0.0, sub_accounts=SubAccounts())
    reseller = Holder(account, ORG, PLAN, Standing("a"), Action.BLOCK, block=entry)
    own = Standing("a", "ann", vouched_by="Ada")
    assert for_user(reseller, "ann", own, 1.0).action is Action.BLOCK
