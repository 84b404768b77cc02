"""Rows of the tables as values, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import RowMapping

from limbeck.guard.account import (
    Account,
    Appeal,
    AppealState,
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
from limbeck.guard.decision import Action, Reason


def organisation(row: RowMapping) -> Organisation:
    """Return the organisation of a row."""
    return Organisation(
        **_fields(row, payment=tuple(row["payment"]), domains=tuple(row["domains"]))
    )


def plan(row: RowMapping) -> Plan:
    """Return the plan of a row."""
    capabilities = frozenset(row["capabilities"])
    return Plan(row["id"], tuple(row["models"]), capabilities, budgets(row["budgets"]))


def plan_row(value: Plan) -> dict[str, Any]:
    """Return the row of a plan."""
    return {
        "id": value.id,
        "models": list(value.models),
        "capabilities": sorted(value.capabilities),
        "budgets": budget_list(value.budgets),
    }


def account(row: RowMapping) -> Account:
    """Return the account of a row."""
    rules = row["sub_accounts"]
    parsed = None if rules is None else SubAccounts(budgets(rules["budgets"]), rules["required"])
    return Account(**_fields(row, sub_accounts=parsed))


def account_row(value: Account) -> dict[str, Any]:
    """Return the row of an account."""
    rules = value.sub_accounts
    row = {name: getattr(value, name) for name in Account.__slots__}
    row["sub_accounts"] = (
        None
        if rules is None
        else {"budgets": budget_list(rules.budgets), "required": rules.required}
    )
    return row


def key(row: RowMapping) -> Key:
    """Return the key of a row."""
    return Key(**_fields(row, digest=bytes(row["digest"])))


def use(row: RowMapping) -> DeclaredUse:
    """Return the declared use of a row."""
    scope = {"models": tuple(row["models"]), "endpoints": tuple(row["endpoints"])}
    return DeclaredUse(**_fields(row, kind=UseKind(row["kind"]), **scope))


def use_row(value: DeclaredUse) -> dict[str, Any]:
    """Return the row of a declared use."""
    row = {name: getattr(value, name) for name in DeclaredUse.__slots__}
    lists = {"models": list(value.models), "endpoints": list(value.endpoints)}
    return {**row, **lists, "kind": value.kind.value}


def block(row: RowMapping) -> BlockEntry:
    """Return the block entry of a row."""
    return BlockEntry(**_fields(row, kind=BlockKind(row["kind"])))


def standing(row: RowMapping) -> Standing:
    """Return the standing of a row."""
    because = tuple(Reason(**reason) for reason in row["because"])
    actions = {"action": Action(row["action"]), "proposed": Action(row["proposed"])}
    return Standing(**_fields(row, because=because, **actions))


def standing_row(value: Standing) -> dict[str, Any]:
    """Return the row of a standing."""
    row = {name: getattr(value, name) for name in Standing.__slots__}
    plain = {"action": int(value.action), "proposed": int(value.proposed)}
    return {**row, **plain, "because": [asdict(reason) for reason in value.because]}


def appeal(row: RowMapping) -> Appeal:
    """Return the appeal of a row."""
    return Appeal(**_fields(row, state=AppealState(row["state"])))


def budgets(items: Sequence[Mapping[str, Any]]) -> tuple[Budget, ...]:
    """Return budgets out of their JSON."""
    return tuple(Budget(Measure(b["measure"]), Window(b["window"]), b["limit"]) for b in items)


def budget_list(values: Sequence[Budget]) -> list[dict[str, Any]]:
    """Return budgets as JSON."""
    return [
        {"measure": b.measure.value, "window": b.window.value, "limit": b.limit} for b in values
    ]


def _fields(row: RowMapping, **parsed: Any) -> dict[str, Any]:
    return {**row, **parsed}
