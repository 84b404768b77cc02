"""What may be done to an account, and who must agree: pure rules from one standing to the next."""

from dataclasses import dataclass, replace
from enum import StrEnum

from limbeck.guard.account import Standing
from limbeck.guard.decision import Action, Reason


class Mode(StrEnum):
    """SHADOW writes down what would be done and does nothing; ENFORCE does it."""

    SHADOW = "shadow"
    ENFORCE = "enforce"


class Lapse(StrEnum):
    """What happens to a sanction whose appeal nobody decided in time."""

    LOWER = "lower"
    LIFT = "lift"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class SanctionRules:
    """What the operator settled beforehand.

    `appeal_hours` is the clock of an appeal; `appeal_to` tells the sanctioned where to send it.
    """

    mode: Mode = Mode.SHADOW
    block_needs_sign_off: bool = True
    appeal_hours: float = 72.0
    on_lapse: Lapse = Lapse.LOWER
    appeal_to: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the policy asks for, on which evidence (the hash of its record)."""

    account: str
    action: Action
    clause: str
    evidence: str
    user: str = ""
    because: tuple[Reason, ...] = ()
    e_value: float = 1.0
    expires: float | None = None


def impose(current: Standing, proposal: Proposal, rules: SanctionRules, now: float) -> Standing:
    """Return the standing after a proposal.

    Evidence on which a person has already decided changes nothing, and what a person signed for is only made milder by
    a person. In shadow mode the proposal waits. A block that needs a signature holds the account meanwhile.
    """
    signed = current.signed_off_by is not None
    if signed and proposal.evidence == current.evidence:
        return current
    in_force = _in_force(current, proposal, rules, now)
    moved = in_force != current.at(now)
    return replace(
        current,
        account=proposal.account,
        user=proposal.user,
        action=in_force,
        proposed=proposal.action,
        since=now if moved else current.since,
        clause=proposal.clause,
        evidence=proposal.evidence,
        e_value=proposal.e_value,
        because=proposal.because,
        expires=proposal.expires if in_force == proposal.action else current.expires,
        signed_off_by=current.signed_off_by if signed and in_force == current.action else None,
    )


def _in_force(current: Standing, proposal: Proposal, rules: SanctionRules, now: float) -> Action:
    floor = current.at(now) if current.signed_off_by else Action.ALLOW
    if rules.mode is Mode.SHADOW:
        return current.at(now)
    wanted = proposal.action
    if wanted is Action.BLOCK and rules.block_needs_sign_off:
        wanted = Action.HOLD
    return max(floor, wanted)


def waits(standing: Standing) -> bool:
    """Tell whether a person is asked to sign: the evidence asks for more than is in force."""
    return standing.proposed > standing.action


def sign_off(standing: Standing, by: str, now: float) -> Standing:
    """Put in force what is proposed, on a person's word; in shadow mode too."""
    return replace(standing, action=standing.proposed, since=now, signed_off_by=by)


def restore(standing: Standing, by: str, now: float) -> Standing:
    """Lift everything, on a person's word. The same evidence will not bring it back; new evidence may."""
    return replace(
        standing,
        action=Action.ALLOW,
        proposed=Action.ALLOW,
        since=now,
        expires=None,
        signed_off_by=by,
    )


def lapse(standing: Standing, rules: SanctionRules, now: float) -> Standing:
    """Return the standing after an appeal that nobody decided in time."""
    match rules.on_lapse:
        case Lapse.KEEP:
            return standing
        case Lapse.LIFT:
            action = Action.ALLOW
        case Lapse.LOWER:
            action = Action(max(standing.action - 1, Action.ALLOW))
    return replace(standing, action=action, proposed=action, since=now)
