"""The ladder of decisions, and one decision with its reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class Action(IntEnum):
    """What is done with an account's requests, mildest first.

    ALLOW passes them; THROTTLE lowers the pace and says so; REDUCE answers only: no log-probabilities and no
    reasoning; CHALLENGE asks the owner to declare the use; HOLD refuses until a person has looked; BLOCK
    refuses, after a named person's sign-off.
    """

    ALLOW = 0
    THROTTLE = 1
    REDUCE = 2
    CHALLENGE = 3
    HOLD = 4
    BLOCK = 5


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason code with the value that it was measured at, such as `new_ground_rate` 0.93."""

    code: str
    value: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about one account, and why.

    `clause` names the clause of the policy file that was met, `e_value` is the evidence against the account's
    best honest rival (1 says nothing), `cluster` the linked accounts that it was pooled over.
    """

    ts: float
    account: str
    action: Action
    because: tuple[Reason, ...] = ()
    clause: str = ""
    e_value: float = 1.0
    cluster: str = ""
    indicators: Mapping[str, float] = field(default_factory=dict)
