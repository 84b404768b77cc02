"""What a holder's standing means for a request: pass, pass with less, or a refusal that says why. Pure."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from limbeck.guard.account import DeclaredUse, Holder
from limbeck.guard.decision import Action
from limbeck.guard.refusal import Refusal


class Mode(StrEnum):
    """SHADOW records what evidence asks for and does only what a person has signed; ENFORCE does it."""

    SHADOW = "shadow"
    ENFORCE = "enforce"


class Passage(NamedTuple):
    """A request may go on, with these capabilities. `reduced`: only a plain answer; `slowed`: at a lower pace."""

    granted: frozenset[str]
    reduced: bool = False
    slowed: bool = False


def in_force(holder: Holder, mode: Mode) -> Action:
    """Return the action that a holder's requests meet.

    In shadow mode only what a named person decided is in force: a block list's entry, or a signed standing.
    """
    signed = holder.block is not None or holder.standing.signed_off_by is not None
    return holder.action if mode is Mode.ENFORCE or signed else Action.ALLOW


def passage(holder: Holder, use: DeclaredUse | None, mode: Mode, appeal: str) -> Passage | Refusal:
    """Say whether a request of this holder goes on, and with what.

    `use` is the declared use that covers the request: it answers a challenge. `appeal` is how to object, a
    sentence that every refusal ends with.
    """
    match in_force(holder, mode):
        case Action.ALLOW:
            return Passage(holder.plan.capabilities)
        case Action.THROTTLE:
            return Passage(holder.plan.capabilities, slowed=True)
        case Action.REDUCE:
            return Passage(frozenset(), reduced=True)
        case Action.CHALLENGE if use is not None:
            return Passage(holder.plan.capabilities)
        case Action.CHALLENGE:
            return _refused(
                holder,
                "declare_use",
                "is asked to declare what it uses the model for before more is served",
                appeal,
            )
        case Action.HOLD:
            return _refused(holder, "held", "is held until a person has looked at it", appeal)
        case Action.BLOCK:
            return _refused(holder, "blocked", "is blocked", appeal)


def slowed(holder: Holder, wait_s: int, per_minute: int, appeal: str) -> Refusal:
    """Return the refusal of a request beyond the lowered pace."""
    return Refusal(
        429,
        "slowed",
        f"account {holder.id} may send {per_minute} requests a minute{_why(holder)}; "
        f"the next one is welcome in {wait_s} s. {appeal}",
        kind="rate_limit_error",
        retry_after_s=wait_s,
    )


def _refused(holder: Holder, code: str, what: str, appeal: str) -> Refusal:
    return Refusal(
        403, code, f"account {holder.id} {what}{_why(holder)}. {appeal}", kind="permission_error"
    )


def _why(holder: Holder) -> str:
    """Name the clause, the reason codes and the moment; the thresholds stay with the operator."""
    if holder.block is not None:
        said = holder.block.reason or holder.block.clause
        return f" since {_day(holder.block.since)}" + (f": {said}" if said else "")
    standing = holder.standing
    codes = ", ".join(dict.fromkeys(reason.code for reason in standing.because))
    parts = [f" since {_day(standing.since)}"]
    if standing.clause:
        parts.append(f" by the clause {standing.clause!r}")
    if codes:
        parts.append(f" because of {codes}")
    return "".join(parts)


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
