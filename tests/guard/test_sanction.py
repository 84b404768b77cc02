from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.guard.account import Standing
from limbeck.guard.decision import Action
from limbeck.guard.sanction import (
    Lapse,
    Mode,
    Proposal,
    SanctionRules,
    impose,
    lapse,
    restore,
    sign_off,
    waits,
)

ACTIONS = st.sampled_from(list(Action))
ENFORCE = SanctionRules(mode=Mode.ENFORCE)
RULES = st.builds(
    SanctionRules,
    mode=st.sampled_from(list(Mode)),
    block_needs_sign_off=st.booleans(),
    on_lapse=st.sampled_from(list(Lapse)),
)
SIGNERS = st.sampled_from([None, "Ada Lovelace"])
STANDINGS = st.builds(
    Standing,
    account=st.just("acme"),
    action=ACTIONS,
    proposed=ACTIONS,
    evidence=st.sampled_from(["", "e1", "e2"]),
    expires=st.sampled_from([None, 50.0, 200.0]),
    signed_off_by=SIGNERS,
)
PROPOSALS = st.builds(
    Proposal,
    account=st.just("acme"),
    action=ACTIONS,
    clause=st.just("c1"),
    evidence=st.sampled_from(["e1", "e2", "e3"]),
    expires=st.sampled_from([None, 200.0]),
)
NOW = 100.0


@given(current=STANDINGS, proposal=PROPOSALS)
def test_in_shadow_mode_nothing_is_done_to_anybody(current: Standing, proposal: Proposal) -> None:
    after = impose(current, proposal, SanctionRules(), NOW)
    assert after.at(NOW) == current.at(NOW)


@given(current=STANDINGS, proposal=PROPOSALS)
def test_nobody_is_blocked_without_a_signature(current: Standing, proposal: Proposal) -> None:
    after = impose(current, proposal, ENFORCE, NOW)
    if after.at(NOW) is Action.BLOCK:
        assert current.at(NOW) is Action.BLOCK
        assert current.signed_off_by is not None


def test_a_proposed_block_holds_until_it_is_signed() -> None:
    held = impose(Standing("acme"), Proposal("acme", Action.BLOCK, "c1", "e1"), ENFORCE, NOW)
    assert (held.action, held.proposed, waits(held)) == (Action.HOLD, Action.BLOCK, True)
    blocked = sign_off(held, "Ada Lovelace", NOW + 1)
    assert (blocked.action, blocked.signed_off_by) == (Action.BLOCK, "Ada Lovelace")
    assert not waits(blocked)


def test_an_operator_may_let_blocks_need_no_signature() -> None:
    rules = SanctionRules(mode=Mode.ENFORCE, block_needs_sign_off=False)
    after = impose(Standing("acme"), Proposal("acme", Action.BLOCK, "c1", "e1"), rules, NOW)
    assert after.action is Action.BLOCK


@given(current=STANDINGS, proposal=PROPOSALS, rules=RULES)
def test_what_a_person_signed_for_only_a_person_makes_milder(
    current: Standing, proposal: Proposal, rules: SanctionRules
) -> None:
    signed = replace(current, signed_off_by="Ada Lovelace", expires=None)
    assert impose(signed, proposal, rules, NOW).at(NOW) >= signed.at(NOW)


@given(current=STANDINGS, proposal=PROPOSALS, rules=RULES)
def test_evidence_on_which_a_person_decided_changes_nothing(
    current: Standing, proposal: Proposal, rules: SanctionRules
) -> None:
    restored = restore(replace(current, evidence=proposal.evidence), "Ada Lovelace", NOW)
    assert restored.at(NOW) is Action.ALLOW
    assert impose(restored, proposal, rules, NOW + 1) == restored


@given(current=STANDINGS, proposal=PROPOSALS, rules=RULES)
def test_the_same_proposal_twice_is_the_same_as_once(
    current: Standing, proposal: Proposal, rules: SanctionRules
) -> None:
    once = impose(current, proposal, rules, NOW)
    assert impose(once, proposal, rules, NOW) == once


def test_evidence_that_fades_lifts_what_nobody_signed() -> None:
    held = impose(Standing("acme"), Proposal("acme", Action.HOLD, "c1", "e1"), ENFORCE, NOW)
    eased = impose(held, Proposal("acme", Action.ALLOW, "", ""), ENFORCE, NOW + 5)
    assert (eased.action, eased.since) == (Action.ALLOW, NOW + 5)


@pytest.mark.parametrize(
    ("how", "left"),
    [(Lapse.KEEP, Action.BLOCK), (Lapse.LOWER, Action.HOLD), (Lapse.LIFT, Action.ALLOW)],
)
def test_a_lapsed_appeal_leaves_what_the_rules_say(how: Lapse, left: Action) -> None:
    blocked = Standing("acme", action=Action.BLOCK, proposed=Action.BLOCK)
    after = lapse(blocked, SanctionRules(on_lapse=how), NOW)
    assert (after.action, after.proposed) == (left, left)


@given(current=STANDINGS, rules=RULES)
def test_a_lapse_never_makes_it_worse(current: Standing, rules: SanctionRules) -> None:
    assert lapse(current, rules, NOW).at(NOW) <= current.at(NOW)


def test_a_measure_ends_when_it_expires() -> None:
    held = impose(
        Standing("acme"), Proposal("acme", Action.HOLD, "c1", "e1", expires=200.0), ENFORCE, NOW
    )
    assert held.at(199.9) is Action.HOLD
    assert held.at(200.0) is Action.ALLOW
