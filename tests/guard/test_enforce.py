"""What a standing means for a request."""

import pytest

from limbeck.guard.account import (
    BlockEntry,
    BlockKind,
    DeclaredUse,
    Holder,
    Plan,
    Standing,
    UseKind,
)
from limbeck.guard.decision import Action
from limbeck.guard.enforce import Passage, in_force, passage
from limbeck.guard.memory import holder_of
from limbeck.guard.refusal import Refusal
from limbeck.guard.sanction import Mode, SanctionRules

PLAN = Plan("p", capabilities=frozenset({"logprobs", "reasoning"}))
ENFORCE = SanctionRules(mode=Mode.ENFORCE)
USE = DeclaredUse("u", "a", UseKind.EVALUATION, 0.0, 1e12, approved_by="anna")


def holder(action: Action, **more: str) -> Holder:
    return holder_of(
        "a", PLAN, standing=Standing("a", action=action, signed_off_by=more.get("signed_off_by"))
    )


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Action.ALLOW, Passage(PLAN.capabilities)),
        (Action.THROTTLE, Passage(PLAN.capabilities, slowed=True)),
        (Action.REDUCE, Passage(frozenset(), reduced=True)),
    ],
)
def test_milder_actions_let_the_request_pass(action: Action, expected: Passage) -> None:
    assert passage(holder(action), None, ENFORCE) == expected


@pytest.mark.parametrize("action", [Action.CHALLENGE, Action.HOLD, Action.BLOCK])
def test_harder_ones_refuse_it(action: Action) -> None:
    refusal = passage(holder(action), None, ENFORCE)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 403
    assert "appeal" in refusal.message


def test_a_declared_use_answers_a_challenge_and_nothing_harder() -> None:
    assert passage(holder(Action.CHALLENGE), USE, ENFORCE) == Passage(PLAN.capabilities)
    assert isinstance(passage(holder(Action.HOLD), USE, ENFORCE), Refusal)


@pytest.mark.parametrize("action", list(Action))
def test_each_step_up_the_ladder_allows_no_more_than_the_one_below(action: Action) -> None:
    def allowed(step: Action) -> frozenset[str] | None:
        result = passage(holder(step), None, ENFORCE)
        return None if isinstance(result, Refusal) else result.granted

    if action is not Action.ALLOW:
        below, here = allowed(Action(action - 1)), allowed(action)
        assert here is None or (below is not None and here <= below)


@pytest.mark.parametrize("action", list(Action))
def test_in_shadow_only_a_persons_word_is_in_force(action: Action) -> None:
    assert in_force(holder(action), Mode.SHADOW) is Action.ALLOW
    assert in_force(holder(action, signed_off_by="anna"), Mode.SHADOW) is action


def test_the_block_list_is_a_persons_word() -> None:
    from dataclasses import replace

    listed = replace(
        holder(Action.ALLOW),
        action=Action.BLOCK,
        block=BlockEntry("b", BlockKind.ORG, "org", 0.0, "anna"),
    )
    assert in_force(listed, Mode.SHADOW) is Action.BLOCK
