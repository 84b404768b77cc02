"""What holds for a key at a time, put together from what is known of its account and owner; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

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
)
from limbeck.guard.decision import Action

_FOREVER = float("inf")


def compose(
    key: Key,
    account: Account,
    org: Organisation,
    plan: Plan,
    standing: Standing,
    *,
    uses: Sequence[DeclaredUse] = (),
    blocks: Iterable[BlockEntry] = (),
    now: float,
) -> Holder | None:
    """Return the holder of a key at a time, None where the key opens nothing.

    The stricter of the account's standing and the block list is in force. The holder is true between its two
    times, in which nothing of this begins or ends.
    """
    listed = tuple(entry for entry in blocks if concerns(entry, org))
    times = _times(key, account, standing, uses, listed)
    since = max((t for t in times if t <= now), default=-_FOREVER)
    until = min((t for t in times if t > now), default=_FOREVER)
    if not key.opens(now) or (account.closed is not None and account.closed <= now):
        return None
    block = next((entry for entry in listed if entry.holds(now)), None)
    return Holder(
        account,
        org,
        plan,
        standing,
        Action.BLOCK if block is not None else standing.at(now),
        tuple(use for use in uses if use.starts <= now < use.expires),
        block,
        key=key.id,
        valid_from=since,
        valid_until=until,
    )


def for_user(reseller: Holder, user: str, own: Standing, now: float) -> Holder:
    """Return the holder of one user behind a reseller.

    The stricter of both standings is in force, unless somebody vouched for the user: then the user's own alone.
    What is done to a user is not done to the reseller. The block list holds for all of them.
    """
    action = own.at(now)
    standing = own
    if own.vouched_by is None and reseller.standing.at(now) > action:
        standing, action = reseller.standing, reseller.standing.at(now)
    if reseller.block is not None:
        action = Action.BLOCK
    changes = [t for t in (own.expires, reseller.standing.expires) if t is not None]
    return replace(
        reseller,
        user=user,
        reseller=reseller,
        standing=standing,
        action=action,
        valid_from=max([reseller.valid_from, *(t for t in changes if t <= now)]),
        valid_until=min([reseller.valid_until, *(t for t in changes if t > now)]),
    )


def concerns(entry: BlockEntry, org: Organisation) -> bool:
    """Tell whether a block entry names an organisation, or an owner that it shares."""
    match entry.kind:
        case BlockKind.ORG:
            return entry.value == org.id
        case BlockKind.PAYMENT:
            return entry.value in org.payment
        case BlockKind.DOMAIN:
            return any(d == entry.value or d.endswith(f".{entry.value}") for d in org.domains)


def _times(
    key: Key,
    account: Account,
    standing: Standing,
    uses: Iterable[DeclaredUse],
    blocks: Iterable[BlockEntry],
) -> list[float]:
    """Return every time at which something begins or ends."""
    times = [key.expires, key.revoked, account.closed, standing.expires]
    for use in uses:
        times += [use.starts, use.expires]
    for entry in blocks:
        times += [entry.expires, entry.lifted]
    return [time for time in times if time is not None]
