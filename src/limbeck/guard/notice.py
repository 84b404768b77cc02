"""What a sanctioned account is told: what is done, why, until when, and how to object. It is all true."""

from datetime import UTC, datetime

from limbeck.guard.account import Holder
from limbeck.guard.decision import Action
from limbeck.guard.sanction import SanctionRules

_DONE = {
    Action.THROTTLE: "is served at a lower pace than its plan allows",
    Action.REDUCE: "gets answers without log-probabilities and without reasoning",
    Action.CHALLENGE: "is asked to declare what this traffic is for",
    Action.HOLD: "is not served until a person has looked at it",
    Action.BLOCK: "is blocked",
}


def notice(holder: Holder, rules: SanctionRules) -> str:
    """Return the message for a holder, empty where nothing is done to it.

    It names the account, the measure, the clause of the policy and the reason codes, and where to object.
    """
    if holder.action is Action.ALLOW:
        return ""
    who = f"user {holder.user!r} of account" if holder.user else "account"
    parts = [f"The {who} {holder.account.id} {_DONE[holder.action]}.", _why(holder), _until(holder)]
    return " ".join(part for part in (*parts, _objection(holder, rules)) if part)


def _why(holder: Holder) -> str:
    if holder.block is not None:
        clause = f" under clause {holder.block.clause!r}" if holder.block.clause else ""
        reason = f": {holder.block.reason}" if holder.block.reason else ""
        return f"Its owner is on the block list{clause}{reason}."
    codes = ", ".join(reason.code for reason in holder.standing.because)
    clause = f"clause {holder.standing.clause!r} of the policy" if holder.standing.clause else ""
    why = " with ".join(part for part in (clause, codes) if part)
    return f"Reason: {why}." if why else ""


def _until(holder: Holder) -> str:
    source = holder.block or holder.standing
    if source.expires is None:
        return ""
    return f"This ends at {datetime.fromtimestamp(source.expires, UTC):%Y-%m-%d %H:%M} UTC."


def _objection(holder: Holder, rules: SanctionRules) -> str:
    where = rules.appeal_to or "the operator of this service"
    hours = f"{rules.appeal_hours:g} hours"
    return (
        f"If this is a mistake, appeal to {where} and name account {holder.account.id}; "
        f"a person decides within {hours}."
    )
