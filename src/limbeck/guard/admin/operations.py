"""Every operation of the admin API: its path, who may, what goes in, what comes out, and the call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from limbeck.errors import LedgerError
from limbeck.guard.account import (
    Account,
    Appeal,
    BlockEntry,
    BlockKind,
    Budget,
    DeclaredUse,
    Key,
    Measure,
    Organisation,
    Plan,
    Standing,
    SubAccounts,
    UseKind,
    Window,
)
from limbeck.guard.admin import bodies as b
from limbeck.guard.admin.ledger import LedgerState, LedgerView
from limbeck.guard.decision import Action, Reason
from limbeck.guard.sanction import Proposal, SanctionRules
from limbeck.guard.state import (
    admins,
    appeals,
    blocks,
    dossier,
    keys,
    organisations,
    plans,
    register,
    rules,
    standings,
    timeline,
    uses,
)
from limbeck.guard.state.admins import Admin, Role
from limbeck.guard.state.home import State
from limbeck.guard.state.leases import LeaseStore
from limbeck.guard.state.writing import Writing


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the admin API, checked: who asks, which id is in the path, the query and the body."""

    state: State
    store: LeaseStore
    ledger: LedgerView | None
    admin: Admin
    id: str
    query: Any
    body: Any


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `secret` is shown here and nowhere else."""

    key: Key
    secret: str


@dataclass(frozen=True, slots=True)
class NewAdmin:
    """An admin key that was just made. `secret` is shown here and nowhere else."""

    admin: Admin
    secret: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. It has a `read`, or a `write` in one transaction; `out` is what comes back."""

    method: str
    path: str
    summary: str
    role: Role
    out: Any
    read: Callable[[sa.Connection, Asked], Any] | None = None
    write: Callable[[Writing, Asked], Any] | None = None
    body: type[b.Body] | None = None
    query: type[b.Query] = field(default=b.NoQuery)
    status: int = 200


def run(operation: Operation, asked: Asked) -> Any:
    """Do what was asked, in the admin's name."""
    if operation.write is not None:
        with asked.state.change(asked.admin.name) as change:
            return operation.write(change, asked)
    assert operation.read is not None  # noqa: S101
    with asked.state.read() as connection:
        return operation.read(connection, asked)


def _budgets(items: list[b.BudgetBody]) -> tuple[Budget, ...]:
    return tuple(Budget(Measure(i.measure), Window(i.window), i.limit) for i in items)


def _create_org(change: Writing, asked: Asked) -> Organisation:
    body: b.OrgBody = asked.body
    payment = [asked.state.pepper.payment(p) for p in body.payment]
    return organisations.create_organisation(
        change, body.id, name=body.name, payment=payment, domains=body.domains
    )


def _identify_org(change: Writing, asked: Asked) -> Organisation:
    body: b.MarksBody = asked.body
    payment = [asked.state.pepper.payment(p) for p in body.payment]
    return organisations.identify_organisation(
        change, asked.id, payment=payment, domains=body.domains
    )


def _write_plan(change: Writing, asked: Asked) -> Plan:
    body: b.PlanBody = asked.body
    plan = Plan(asked.id, tuple(body.models), frozenset(body.capabilities), _budgets(body.budgets))
    return plans.write_plan(change, plan, replace=True)


def _open_account(change: Writing, asked: Asked) -> Account:
    body: b.AccountBody = asked.body
    sub = body.sub_accounts
    return register.open_account(
        change,
        org=body.org,
        plan_id=body.plan,
        id=body.id,
        name=body.name,
        sub_accounts=None if sub is None else SubAccounts(_budgets(sub.budgets), sub.required),
    )


def _create_key(change: Writing, asked: Asked) -> NewKey:
    body: b.KeyBody = asked.body
    made = keys.create_key(
        change, asked.state.pepper, asked.id, label=body.label, expires=body.expires
    )
    return NewKey(made.key, made.secret)


def _rotate_key(change: Writing, asked: Asked) -> NewKey:
    body: b.RotateBody = asked.body
    made = keys.rotate_key(
        change, asked.state.pepper, asked.id, overlap_seconds=body.overlap_seconds
    )
    return NewKey(made.key, made.secret)


def _declare_use(change: Writing, asked: Asked) -> DeclaredUse:
    body: b.UseBody = asked.body
    return uses.declare_use(
        change,
        asked.id,
        UseKind(body.kind),
        starts=change.now if body.starts is None else body.starts,
        expires=body.expires,
        models=tuple(body.models),
        endpoints=tuple(body.endpoints),
        volume=body.volume,
        purpose=body.purpose,
    )


def _block(change: Writing, asked: Asked) -> BlockEntry:
    body: b.BlockBody = asked.body
    kind = BlockKind(body.kind)
    value = asked.state.pepper.payment(body.value) if kind is BlockKind.PAYMENT else body.value
    return blocks.block(
        change,
        kind,
        value,
        by=asked.admin.name,
        clause=body.clause,
        reason=body.reason,
        expires=body.expires,
    )


def _propose(change: Writing, asked: Asked) -> Standing:
    body: b.ProposalBody = asked.body
    proposal = Proposal(
        asked.id,
        Action[body.action.upper()],
        body.clause,
        body.evidence,
        body.user,
        tuple(Reason(r.code, r.value, r.detail) for r in body.because),
        body.e_value,
        body.expires,
    )
    return standings.propose(change, proposal, rules.sanction_rules(change.connection))


def _standing(connection: sa.Connection, asked: Asked) -> Standing:
    register.account(connection, asked.id)
    return standings.standing(connection, asked.id, asked.query.user)


def _standings(connection: sa.Connection, asked: Asked) -> list[Standing]:
    if asked.query.waiting:
        return standings.waiting(connection)[: asked.query.limit]
    return standings.standings(connection, limit=asked.query.limit)


def _restore(change: Writing, asked: Asked) -> Standing:
    who: b.WhoBody = asked.body
    return standings.restore(change, asked.id, asked.admin.name, user=who.user, reason=who.reason)


def _file_appeal(change: Writing, asked: Asked) -> Appeal:
    body: b.AppealBody = asked.body
    current = rules.sanction_rules(change.connection)
    return appeals.file_appeal(change, current, asked.id, user=body.user, text=body.text)


def _decide_appeal(change: Writing, asked: Asked) -> Appeal:
    body: b.DecisionBody = asked.body
    return appeals.decide_appeal(
        change, asked.id, uphold=body.uphold, by=asked.admin.name, answer=body.answer
    )


def _create_admin(change: Writing, asked: Asked) -> NewAdmin:
    body: b.AdminBody = asked.body
    made = admins.create_admin(
        change, asked.state.pepper, body.name, Role(body.role), expires=body.expires
    )
    return NewAdmin(*made)


def _ledger(_: sa.Connection, asked: Asked) -> LedgerState:
    if asked.ledger is None:
        raise LedgerError("this guard keeps no ledger")
    return asked.ledger.state()


_R, _O, _S = Role.READ, Role.OPERATE, Role.SIGN

OPERATIONS: Final = (
    Operation(
        "GET",
        "/orgs",
        "List organisations",
        _R,
        list[Organisation],
        lambda c, a: organisations.organisations(c, after=a.query.after, limit=a.query.limit),
        query=b.PageQuery,
    ),
    Operation(
        "POST",
        "/orgs",
        "Make an organisation",
        _O,
        Organisation,
        write=_create_org,
        body=b.OrgBody,
        status=201,
    ),
    Operation(
        "GET",
        "/orgs/{id}",
        "Show an organisation",
        _R,
        Organisation,
        lambda c, a: organisations.organisation(c, a.id),
    ),
    Operation(
        "POST",
        "/orgs/{id}/marks",
        "Add marks by which an owner is known again",
        _O,
        Organisation,
        write=_identify_org,
        body=b.MarksBody,
    ),
    Operation("GET", "/plans", "List plans", _R, list[Plan], lambda c, _: plans.plans(c)),
    Operation("GET", "/plans/{id}", "Show a plan", _R, Plan, lambda c, a: plans.plan(c, a.id)),
    Operation(
        "PUT",
        "/plans/{id}",
        "Make or replace a plan",
        _O,
        Plan,
        write=_write_plan,
        body=b.PlanBody,
    ),
    Operation(
        "GET",
        "/accounts",
        "List accounts",
        _R,
        list[Account],
        lambda c, a: register.accounts(
            c, org=a.query.org, after=a.query.after, limit=a.query.limit
        ),
        query=b.AccountsQuery,
    ),
    Operation(
        "POST",
        "/accounts",
        "Open an account",
        _O,
        Account,
        write=_open_account,
        body=b.AccountBody,
        status=201,
    ),
    Operation(
        "GET",
        "/accounts/{id}",
        "Show everything about an account",
        _R,
        dossier.Dossier,
        lambda c, a: dossier.dossier(c, a.store, a.id),
    ),
    Operation(
        "POST",
        "/accounts/{id}/plan",
        "Give an account another plan",
        _O,
        Account,
        write=lambda w, a: register.move_account(w, a.id, a.body.plan),
        body=b.MoveBody,
    ),
    Operation(
        "POST",
        "/accounts/{id}/close",
        "Close an account",
        _O,
        Account,
        write=lambda w, a: register.close_account(w, a.id),
        body=b.Nothing,
    ),
    Operation(
        "GET",
        "/keys",
        "List keys by their ids",
        _R,
        list[Key],
        lambda c, a: keys.keys(c, a.query.account),
        query=b.OfAccountQuery,
    ),
    Operation(
        "POST",
        "/accounts/{id}/keys",
        "Make a key",
        _O,
        NewKey,
        write=_create_key,
        body=b.KeyBody,
        status=201,
    ),
    Operation(
        "POST",
        "/keys/{id}/rotate",
        "Make a key that takes another's place",
        _O,
        NewKey,
        write=_rotate_key,
        body=b.RotateBody,
        status=201,
    ),
    Operation(
        "POST",
        "/keys/{id}/revoke",
        "Make a key open nothing any more",
        _O,
        Key,
        write=lambda w, a: keys.revoke_key(w, a.id),
        body=b.Nothing,
    ),
    Operation(
        "GET",
        "/uses",
        "List declared uses",
        _R,
        list[DeclaredUse],
        lambda c, a: uses.uses(c, a.query.account),
        query=b.OfAccountQuery,
    ),
    Operation(
        "POST",
        "/accounts/{id}/uses",
        "Declare a use",
        _O,
        DeclaredUse,
        write=_declare_use,
        body=b.UseBody,
        status=201,
    ),
    Operation(
        "POST",
        "/uses/{id}/approve",
        "Let a use cover what it names",
        _S,
        DeclaredUse,
        write=lambda w, a: uses.approve_use(w, a.id, a.admin.name),
        body=b.Nothing,
    ),
    Operation(
        "POST",
        "/uses/{id}/revoke",
        "Let a use cover nothing from now on",
        _S,
        DeclaredUse,
        write=lambda w, a: uses.withdraw_use(w, a.id),
        body=b.Nothing,
    ),
    Operation(
        "GET",
        "/blocks",
        "List the block list",
        _R,
        list[BlockEntry],
        lambda c, _: blocks.blocks(c),
    ),
    Operation(
        "POST",
        "/blocks",
        "Block an owner",
        _S,
        BlockEntry,
        write=_block,
        body=b.BlockBody,
        status=201,
    ),
    Operation(
        "POST",
        "/blocks/{id}/restore",
        "Take an owner off the list",
        _S,
        BlockEntry,
        write=lambda w, a: blocks.lift(w, a.id, a.admin.name),
        body=b.Nothing,
    ),
    Operation(
        "GET",
        "/standings",
        "List standings, the strongest evidence first",
        _R,
        list[Standing],
        _standings,
        query=b.StandingsQuery,
    ),
    Operation(
        "GET",
        "/accounts/{id}/standing",
        "Show a standing",
        _R,
        Standing,
        _standing,
        query=b.UserQuery,
    ),
    Operation(
        "POST",
        "/accounts/{id}/proposals",
        "Propose a measure",
        _O,
        Standing,
        write=_propose,
        body=b.ProposalBody,
    ),
    Operation(
        "POST",
        "/accounts/{id}/standing/approve",
        "Sign what is proposed",
        _S,
        Standing,
        write=lambda w, a: standings.sign_off(w, a.id, a.admin.name, user=a.body.user),
        body=b.WhoBody,
    ),
    Operation(
        "POST",
        "/accounts/{id}/standing/restore",
        "Lift everything",
        _S,
        Standing,
        write=_restore,
        body=b.WhoBody,
    ),
    Operation(
        "POST",
        "/accounts/{id}/standing/vouch",
        "Let a reseller's user be judged alone",
        _S,
        Standing,
        write=lambda w, a: standings.vouch(w, a.id, a.body.user, a.admin.name),
        body=b.VouchBody,
    ),
    Operation(
        "GET",
        "/appeals",
        "List appeals, the next one due first",
        _R,
        list[Appeal],
        lambda c, a: appeals.appeals(c, a.query.account, only_open=a.query.open),
        query=b.AppealsQuery,
    ),
    Operation(
        "POST",
        "/accounts/{id}/appeals",
        "File an appeal",
        _O,
        Appeal,
        write=_file_appeal,
        body=b.AppealBody,
        status=201,
    ),
    Operation(
        "POST",
        "/appeals/{id}/decide",
        "Decide an appeal",
        _S,
        Appeal,
        write=_decide_appeal,
        body=b.DecisionBody,
    ),
    Operation(
        "GET",
        "/rules",
        "Show the rules of sanctions",
        _R,
        SanctionRules,
        lambda c, _: rules.sanction_rules(c),
    ),
    Operation(
        "PATCH",
        "/rules",
        "Change rules of sanctions",
        _S,
        SanctionRules,
        write=lambda w, a: rules.set_sanction_rules(w, **a.body.model_dump(exclude_none=True)),
        body=b.RulesBody,
    ),
    Operation("GET", "/admins", "List admin keys", _R, list[Admin], lambda c, _: admins.admins(c)),
    Operation(
        "POST",
        "/admins",
        "Make an admin key",
        _S,
        NewAdmin,
        write=_create_admin,
        body=b.AdminBody,
        status=201,
    ),
    Operation(
        "POST",
        "/admins/{id}/revoke",
        "Make an admin key open nothing any more",
        _S,
        Admin,
        write=lambda w, a: admins.revoke_admin(w, a.id),
        body=b.Nothing,
    ),
    Operation(
        "GET",
        "/events",
        "List what was done, newest first",
        _R,
        list[timeline.Event],
        lambda c, a: timeline.timeline(c, a.query.account, limit=a.query.limit),
        query=b.EventsQuery,
    ),
    Operation("GET", "/ledger", "Show how far the ledger is", _R, LedgerState, _ledger),
)
