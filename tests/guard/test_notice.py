from dataclasses import replace

import pytest

from limbeck.guard.account import BlockEntry, BlockKind, Standing
from limbeck.guard.decision import Action, Reason
from limbeck.guard.memory import holder_of
from limbeck.guard.notice import notice
from limbeck.guard.sanction import SanctionRules

RULES = SanctionRules(appeal_hours=48, appeal_to="https://model.example/appeals")


def test_an_account_in_good_standing_is_told_nothing() -> None:
    assert notice(holder_of("acme"), RULES) == ""


@pytest.mark.parametrize("action", [a for a in Action if a is not Action.ALLOW])
def test_a_sanctioned_account_is_told_what_why_until_when_and_how_to_appeal(action: Action) -> None:
    standing = Standing(
        "acme",
        action=action,
        clause="copying.2",
        because=(Reason("new_ground_rate", 0.93), Reason("template_share", 0.8)),
        expires=1_790_000_000.0,
    )
    text = notice(holder_of("acme", standing=standing), RULES)
    for part in ("acme", "'copying.2'", "new_ground_rate, template_share", "2026-09-21 14:13 UTC"):
        assert part in text
    assert "appeal to https://model.example/appeals" in text
    assert "within 48 hours" in text
    assert ("blocked" in text) == (action is Action.BLOCK)


def test_a_blocked_owner_is_told_the_reason_of_the_block_list() -> None:
    entry = BlockEntry("b", BlockKind.ORG, "org", 0.0, "Ada", "terms.4", "resold under false names")
    holder = replace(holder_of("acme"), action=Action.BLOCK, block=entry)
    text = notice(holder, RULES)
    assert "block list under clause 'terms.4': resold under false names." in text


def test_a_user_behind_a_reseller_is_named() -> None:
    standing = Standing("shop", "eve", Action.HOLD)
    holder = replace(holder_of("shop", standing=standing), user="eve")
    assert notice(holder, RULES).startswith("The user 'eve' of account shop is not served until")
