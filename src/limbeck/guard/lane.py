"""The benchmark lane: evaluations get answers and nothing else, each item a bounded number of times, and no accusation.

A copier may hide here: he gets short answers without reasoning or log-probabilities, to items of a suite or of a use
that somebody signed for. What that is worth to a student is measured in docs/guard-evaluation.md.
"""

from dataclasses import dataclass

from limbeck.guard.decision import Action, Reason
from limbeck.guard.memory import Memory
from limbeck.guard.policy import Lane

LEAST_REQUESTS = 8
"""Requests from which a suite can be recognised."""


@dataclass(frozen=True, slots=True)
class Place:
    """An account's place in the lane: what it is served, and why."""

    action: Action
    because: tuple[Reason, ...]


def place(lane: Lane, memory: Memory, declared_use: str | None) -> Place | None:
    """Return the lane's answer for an account, or None outside the lane."""
    share = memory.suite_share()
    declared = declared_use is not None and declared_use in lane.declared
    recognised = memory.requests >= LEAST_REQUESTS and share >= lane.suite_share
    if not declared and not recognised:
        return None
    because = [
        Reason("declared_use", 1.0, declared_use or "")
        if declared
        else Reason("known_suite", round(share, 4))
    ]
    asks = memory.asks_per_item()
    if asks > lane.repeats:
        return Place(Action.REDUCE, (*because, Reason("repeats_bounded", round(asks, 2))))
    return Place(Action.REDUCE, tuple(because))
