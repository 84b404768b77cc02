"""What a holder's standing means for a request: pass, pass with less, or a refusal that says why. Pure."""

from typing import NamedTuple

from limbeck.guard.account import DeclaredUse, Holder
from limbeck.guard.decision import Action
from limbeck.guard.notice import notice
from limbeck.guard.refusal import Refusal
from limbeck.guard.sanction import Mode, SanctionRules

_CODES = {Action.CHALLENGE: "declare_use", Action.HOLD: "held", Action.BLOCK: "blocked"}


class Passage(NamedTuple):
    """A request may go on, with these capabilities. `reduced`: only a plain answer; `slowed`: at a lower pace."""

    granted: frozenset[str]
    reduced: bool = False
    slowed: bool = False


def in_force(holder: Holder, mode: Mode) -> Action:
    """Return the action that a holder's requests meet.

    In shadow mode only what a named person decided is in force: an entry of the block list, or a signed standing.
    """
    signed = holder.block is not None or holder.standing.signed_off_by is not None
    return holder.action if mode is Mode.ENFORCE or signed else Action.ALLOW


def passage(holder: Holder, use: DeclaredUse | None, rules: SanctionRules) -> Passage | Refusal:
    """Say whether a request of this holder goes on, and with what.

    `use` is the declared use that covers the request: it answers a challenge.
    """
    match in_force(holder, rules.mode):
        case Action.ALLOW:
            return Passage(holder.plan.capabilities)
        case Action.THROTTLE:
            return Passage(holder.plan.capabilities, slowed=True)
        case Action.REDUCE:
            return Passage(frozenset(), reduced=True)
        case Action.CHALLENGE if use is not None:
            return Passage(holder.plan.capabilities)
        case action:
            return Refusal(403, _CODES[action], notice(holder, rules), kind="permission_error")


def slowed(holder: Holder, wait_s: int, per_minute: int, rules: SanctionRules) -> Refusal:
    """Return the refusal of a request beyond the lowered pace."""
    return Refusal(
        429,
        "slowed",
        f"{notice(holder, rules)} It may send {per_minute} requests a minute; the next is welcome in {wait_s} s.",
        kind="rate_limit_error",
        retry_after_s=wait_s,
    )
