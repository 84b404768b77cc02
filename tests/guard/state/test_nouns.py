"""Organisations, plans, accounts, uses, blocks, standings, appeals, rules and admins, each with what it refuses."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from guardstate import T0, Clock, furnish, per
from limbeck.errors import AccountError
from limbeck.guard.account import (
    AppealState,
    BlockKind,
    Budget,
    Holder,
    Measure,
    Plan,
    SubAccounts,
    UseKind,
    Window,
)
from limbeck.guard.decision import Action, Reason
from limbeck.guard.sanction import Lapse, Mode, Proposal, SanctionRules
from limbeck.guard.state.admins import (
    Role,
    admin,
    admins,
    authenticate_admin,
    create_admin,
    revoke_admin,
)
from limbeck.guard.state.appeals import appeal, appeals, decide_appeal, file_appeal
from limbeck.guard.state.blocks import block, blocks, lift
from limbeck.guard.state.dossier import dossier
from limbeck.guard.state.home import State
from limbeck.guard.state.housekeeping import lapse_appeals
from limbeck.guard.state.keys import create_key
from limbeck.guard.state.mirror import Mirror
from limbeck.guard.state.organisations import (
    create_organisation,
    identify_organisation,
    organisation,
    organisations,
)
from limbeck.guard.state.plans import parse_budget, plan, write_plan
from limbeck.guard.state.register import account, accounts, move_account, open_account
from limbeck.guard.state.rules import sanction_rules, set_sanction_rules
from limbeck.guard.state.standings import (
    propose,
    restore,
    sign_off,
    standing,
    standings,
    vouch,
    waiting,
)
from limbeck.guard.state.timeline import timeline
from limbeck.guard.state.uses import approve_use, declare_use, uses, withdraw_use
from limbeck.guard.state.writing import Writing

ADA = "Ada Lovelace"
ENFORCE = SanctionRules(mode=Mode.ENFORCE)
BLOCK = Proposal(
    "acme", Action.BLOCK, "copying.2", "e1", because=(Reason("new_ground", 0.9),), e_value=400.0
)


def refuses(state: State, act: Callable[[Writing], object], match: str) -> None:
    with pytest.raises(AccountError, match=match), state.change("test") as change:
        act(change)


def found(state: State, key: str, now: float = T0) -> Holder:
    mirror = Mirror(state.database, state.pepper)
    mirror.refresh()
    holder = mirror.find(key, now)
    assert holder is not None
    return holder


def test_organisations_are_made_once_and_identified_by_their_owners_marks(state: State) -> None:
    with state.change("test") as change:
        create_organisation(change, "acme", name="Acme", domains=["Shop.Acme.Example."])
        identify_organisation(change, "acme", payment=["cafe", "cafe"], domains=["acme.example"])
        identify_organisation(change, "acme", payment=["cafe"])
    with state.read() as connection:
        known = organisation(connection, "acme")
        assert known.domains == ("shop.acme.example", "acme.example")
        assert set(known.payment) == {"cafe"}
        assert organisations(connection) == [known]
        assert organisations(connection, after="acme") == []
    refuses(state, lambda c: create_organisation(c, "acme"), "already")
    refuses(state, lambda c: create_organisation(c, "Acme"), "1 to 63 of a-z")
    refuses(
        state,
        lambda c: create_organisation(c, "b", domains=["localhost"]),
        "looks like example.org",
    )
    refuses(state, lambda c: organisation(c.connection, "none"), "no organisation 'none'")


def test_a_plan_survives_the_database_and_is_replaced_only_on_request(state: State) -> None:
    written = Plan(
        "std",
        ("a", "b"),
        frozenset({"seed", "n"}),
        (per("cost", "month", 5), per("tokens", "day", 7)),
    )
    with state.change("test") as change:
        write_plan(change, written)
    refuses(state, lambda c: write_plan(c, written), "--replace")
    with state.change("test") as change:
        write_plan(change, replace(written, models=("c",)), replace=True)
    with state.read() as connection:
        assert plan(connection, "std") == replace(written, models=("c",))


@pytest.mark.parametrize(
    ("budgets", "match"),
    [
        ((per("tokens", "day", 1), per("tokens", "day", 2)), "two budgets tokens/day"),
        ((per("tokens", "day", -1),), "from 0 to"),
        ((per("tokens", "day", 1 << 53),), "from 0 to"),
        ((per("requests", "life", 1),), "life is for declared uses"),
    ],
)
def test_budgets_that_cannot_be_kept_are_refused(
    state: State, budgets: tuple[Budget, ...], match: str
) -> None:
    refuses(state, lambda c: write_plan(c, Plan("p", budgets=budgets)), match)


def test_a_budget_is_read_as_it_is_written() -> None:
    budget = parse_budget("requests/minute=60")
    assert (budget.measure, budget.window, budget.limit) == (Measure.REQUESTS, Window.MINUTE, 60)
    for text in (
        "",
        "requests",
        "requests/hour=1",
        "words/day=1",
        "tokens/day=-1",
        "tokens/day=1.5",
        "requests/life=3",
    ):
        with pytest.raises(AccountError, match="looks like requests/minute=60"):
            parse_budget(text)


def test_accounts_belong_to_an_organisation_and_a_plan_that_exist(state: State) -> None:
    furnish(state)
    refuses(state, lambda c: open_account(c, org="none", plan_id="plan-acme"), "no organisation")
    refuses(state, lambda c: open_account(c, org="org-acme", plan_id="none"), "no plan 'none'")
    refuses(
        state, lambda c: open_account(c, org="org-acme", plan_id="plan-acme", id="acme"), "already"
    )
    with state.change("test") as change:
        write_plan(change, Plan("other"))
        drawn = open_account(change, org="org-acme", plan_id="other")
        move_account(change, "acme", "other")
    with state.read() as connection:
        assert {a.id: a.plan for a in accounts(connection)} == {"acme": "other", drawn.id: "other"}
        assert len(accounts(connection, org="none")) == 0
        assert account(connection, "acme").plan == "other"


def test_a_declared_use_covers_only_after_a_person_approved_it_and_only_its_scope(
    state: State,
) -> None:
    key = furnish(state)
    with state.change("test") as change:
        use = declare_use(
            change,
            "acme",
            UseKind.DISTILLATION,
            starts=T0 + 10,
            expires=T0 + 20,
            models=("m",),
            endpoints=("/v1/chat/completions",),
        )
    chat = "/v1/chat/completions"
    assert found(state, key, T0 + 15).use_for("m", chat, T0 + 15) is None
    refuses(state, lambda c: approve_use(c, use.id, "policy"), "name of the person")
    with state.change("test") as change:
        approve_use(change, use.id, ADA)
    covers = [
        found(state, key, T0 + t).use_for(m, e, T0 + t) is not None
        for t, m, e in (
            (15, "m", chat),
            (9, "m", chat),
            (20, "m", chat),
            (15, "x", chat),
            (15, "m", "/v1/x"),
        )
    ]
    assert covers == [True, False, False, False, False]
    refuses(state, lambda c: approve_use(c, use.id, ADA), "approved already, by Ada")
    with state.change("test") as change:
        withdraw_use(change, use.id)
    assert found(state, key, T0 + 15).use_for("m", chat, T0 + 15) is None
    with state.read() as connection:
        assert [u.id for u in uses(connection, "acme")] == [use.id]


def test_uses_that_cover_nothing_are_refused(state: State) -> None:
    furnish(state)

    def declare(change: Writing, **values: object) -> None:
        arguments: dict[str, object] = {"starts": T0, "expires": T0 + 9} | values
        declare_use(change, "acme", UseKind.RESEARCH, **arguments)  # pyright: ignore[reportArgumentType]

    refuses(state, lambda c: declare(c, expires=T0), "expire after it starts")
    refuses(state, lambda c: declare(c, starts=T0 + 9), "expire after it starts")
    refuses(state, lambda c: declare(c, volume=0), "at least 1 request")
    refuses(state, lambda c: declare(c, models=()), "names models and endpoints")


@pytest.mark.parametrize("kind", list(BlockKind))
def test_a_blocked_owner_stays_blocked_with_new_organisations_accounts_and_keys(
    state: State, kind: BlockKind
) -> None:
    key = furnish(state)
    card = state.pepper.payment("4242 4242")
    value = {BlockKind.ORG: "org-acme", BlockKind.PAYMENT: card, BlockKind.DOMAIN: "acme.example"}[
        kind
    ]
    with state.change("test") as change:
        identify_organisation(change, "org-acme", payment=[card])
        entry = block(change, kind, value, by=ADA, clause="c", reason="resold")
        create_organisation(change, "front", payment=[card], domains=["x.acme.example"])
        open_account(change, org="front", plan_id="plan-acme", id="front")
        fronted = create_key(change, state.pepper, "front").secret
        later = create_key(change, state.pepper, "acme").secret
        create_organisation(change, "honest")
        open_account(change, org="honest", plan_id="plan-acme", id="honest")
        honest = create_key(change, state.pepper, "honest").secret
    inherits = kind is not BlockKind.ORG
    actions = [found(state, text).action for text in (key, later, fronted, honest)]
    front = Action.BLOCK if inherits else Action.ALLOW
    assert actions == [Action.BLOCK, Action.BLOCK, front, Action.ALLOW]
    assert found(state, key).block == entry
    refuses(state, lambda c: block(c, kind, value, by=ADA), "on the block list already")
    with state.change("test") as change:
        lift(change, entry.id, ADA)
    assert found(state, later).action is Action.ALLOW
    refuses(state, lambda c: lift(c, entry.id, ADA), "lifted already")
    with state.read() as connection:
        assert blocks(connection)[0].lifted == T0


def test_a_block_ends_when_it_expires(state: State) -> None:
    key = furnish(state)
    with state.change("test") as change:
        block(change, BlockKind.ORG, "org-acme", by=ADA, expires=T0 + 5)
    assert [found(state, key, T0 + t).action for t in (4, 5)] == [Action.BLOCK, Action.ALLOW]


def test_a_block_needs_a_person_and_an_owner_that_exists(state: State) -> None:
    furnish(state)
    refuses(state, lambda c: block(c, BlockKind.ORG, "none", by=ADA), "no organisation")
    refuses(state, lambda c: block(c, BlockKind.ORG, "org-acme", by="policy"), "name of the person")


def test_a_block_waits_for_a_signature_and_one_call_restores(state: State) -> None:
    key = furnish(state)
    with state.change("policy") as change:
        held = propose(change, BLOCK, ENFORCE)
    assert (held.action, held.proposed) == (Action.HOLD, Action.BLOCK)
    with state.read() as connection:
        assert waiting(connection) == [held]
    refuses(state, lambda c: sign_off(c, "acme", "system"), "name of the person")
    with state.change(ADA) as change:
        sign_off(change, "acme", ADA)
    assert found(state, key).action is Action.BLOCK
    refuses(state, lambda c: sign_off(c, "acme", ADA), "nothing waits")
    with state.change(ADA) as change:
        restore(change, "acme", ADA, reason="a benchmark")
    assert found(state, key).action is Action.ALLOW
    with state.read() as connection:
        assert waiting(connection) == []
        assert [s.account for s in standings(connection)] == ["acme"]
        story = [(e.what, e.by) for e in timeline(connection, "acme")][:3]
        restored = timeline(connection, "acme")[0].detail
    assert story == [("restored", ADA), ("measure signed off", ADA), ("measure proposed", "policy")]
    assert (restored["evidence"], restored["reason"]) == ("e1", "a benchmark")


def test_a_measure_without_recorded_evidence_is_refused(state: State) -> None:
    furnish(state)
    bare = replace(BLOCK, evidence="")
    refuses(state, lambda c: propose(c, bare, ENFORCE), "needs recorded evidence")
    refuses(state, lambda c: propose(c, replace(BLOCK, account="none"), ENFORCE), "no account")


def test_vouching_is_for_a_named_user_of_a_reseller(state: State) -> None:
    furnish(state)
    furnish(state, account="shop", sub_accounts=SubAccounts())
    refuses(state, lambda c: vouch(c, "acme", "ann", ADA), "is no reseller")
    refuses(state, lambda c: vouch(c, "shop", "", ADA), "name the user")
    refuses(state, lambda c: vouch(c, "shop", "x" * 129, ADA), "at most 128 characters")
    refuses(state, lambda c: vouch(c, "shop", "a\nb", ADA), "all printable")
    with state.change(ADA) as change:
        assert vouch(change, "shop", "ann", ADA).vouched_by == ADA


def test_an_upheld_appeal_restores_and_a_rejected_one_does_not(state: State) -> None:
    furnish(state)
    for uphold, left, closed in (
        (False, Action.HOLD, AppealState.REJECTED),
        (True, Action.ALLOW, AppealState.UPHELD),
    ):
        with state.change("policy") as change:
            propose(change, replace(BLOCK, evidence=f"e-{uphold}"), ENFORCE)
            filed = file_appeal(change, ENFORCE, "acme", text="We benchmark.")
        assert filed.due == T0 + 72 * 3600
        refuses(state, lambda c: file_appeal(c, ENFORCE, "acme"), "open already")
        with state.change(ADA) as change:
            decide_appeal(change, filed.id, uphold=uphold, by=ADA, answer="See the timeline.")
        with state.read() as connection:
            assert appeal(connection, filed.id).state is closed
            assert standing(connection, "acme").action is left
        refuses(state, lambda c, f=filed: decide_appeal(c, f.id, uphold=True, by=ADA), "already")


def test_an_appeal_that_nobody_decides_in_time_lowers_the_sanction_one_rung(
    state: State, clock: Clock
) -> None:
    furnish(state)
    with state.change("policy") as change:
        set_sanction_rules(change, appeal_hours=1)
        propose(change, BLOCK, ENFORCE)
        sign_off(change, "acme", ADA)
        file_appeal(change, sanction_rules(change.connection), "acme")
    clock.now = T0 + 3599
    assert lapse_appeals(state.database, clock.now) == []
    clock.now = T0 + 3600
    with state.read() as connection:
        assert appeals(connection)[0].overdue(clock.now)
    assert len(lapse_appeals(state.database, clock.now)) == 1
    assert lapse_appeals(state.database, clock.now) == []
    with state.read() as connection:
        assert appeals(connection)[0].state is AppealState.LAPSED
        assert standing(connection, "acme").action is Action.HOLD


def test_appeals_have_a_length_and_an_account(state: State) -> None:
    furnish(state)
    refuses(state, lambda c: file_appeal(c, ENFORCE, "acme", text="x" * 10_001), "at most 10000")
    refuses(state, lambda c: file_appeal(c, ENFORCE, "none"), "no account")
    refuses(state, lambda c: decide_appeal(c, "none", uphold=True, by=ADA), "no appeal 'none'")


def test_the_rules_start_in_shadow_mode_and_change_for_every_worker(state: State) -> None:
    mirror = Mirror(state.database, state.pepper)
    mirror.refresh()
    assert mirror.rules == SanctionRules()
    assert mirror.rules.mode is Mode.SHADOW
    with state.change(ADA) as change:
        set_sanction_rules(
            change, mode="enforce", on_lapse="lift", block_needs_sign_off="false", appeal_hours="24"
        )
    mirror.refresh()
    assert mirror.rules == SanctionRules(Mode.ENFORCE, False, 24.0, Lapse.LIFT, "")
    refuses(state, lambda c: set_sanction_rules(c, speed=1), "no rule 'speed'; there are mode")
    refuses(
        state, lambda c: set_sanction_rules(c, mode="hard"), "mode must be one of shadow, enforce"
    )
    refuses(state, lambda c: set_sanction_rules(c, appeal_hours="0"), "above 0")
    refuses(state, lambda c: set_sanction_rules(c, block_needs_sign_off="maybe"), "true, false")


def test_an_admin_key_opens_for_a_person_until_it_is_revoked(state: State) -> None:
    api_key = furnish(state)
    with state.change("test") as change:
        made, text = create_admin(change, state.pepper, ADA, Role.OPERATE, expires=T0 + 9)
    with state.read() as connection:
        assert authenticate_admin(connection, state.pepper, text, T0) == made
        for wrong in (api_key, text + "x", "", "la-", text[:-1]):
            assert authenticate_admin(connection, state.pepper, wrong, T0) is None
        assert authenticate_admin(connection, state.pepper, text, T0 + 9) is None
    assert [made.may(role) for role in Role] == [True, True, False]
    with state.change("test") as change:
        revoke_admin(change, made.id)
    with state.read() as connection:
        assert authenticate_admin(connection, state.pepper, text, T0) is None
        assert admin(connection, made.id) == admins(connection)[0]
    refuses(
        state, lambda c: create_admin(c, state.pepper, "policy", Role.READ), "name of the person"
    )
    refuses(state, lambda c: revoke_admin(c, "none"), "no admin key 'none'")


def test_a_dossier_gathers_everything_about_an_account(state: State) -> None:
    furnish(state, per("requests", "day", 5))
    with state.change("policy") as change:
        propose(change, BLOCK, ENFORCE)
        file_appeal(change, ENFORCE, "acme", text="Why?")
    with state.read() as connection:
        gathered = dossier(connection, None, "acme")
    assert (gathered.account.id, gathered.org.id, gathered.plan.id) == (
        "acme",
        "org-acme",
        "plan-acme",
    )
    assert gathered.standing.because == BLOCK.because
    assert [len(part) for part in (gathered.keys, gathered.appeals, gathered.events)] == [1, 1, 4]
    with pytest.raises(AccountError, match="no account 'none'"), state.read() as connection:
        dossier(connection, None, "none")
