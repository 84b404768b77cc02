"""Plans: written, read."""

import sqlalchemy as sa

from limbeck.errors import AccountError, NoSuchError
from limbeck.guard.account import Budget, Measure, Plan, Window
from limbeck.guard.state import records
from limbeck.guard.state.identifier import chosen
from limbeck.guard.state.tables import plan as table
from limbeck.guard.state.writing import Writing

_MAX = (1 << 53) - 1


def write_plan(change: Writing, plan: Plan, *, replace: bool = False) -> Plan:
    """Make a plan, or replace one for every account that has it.

    Raises:
        AccountError: The id is malformed or taken, or two budgets are for the same measure and window.
    """
    chosen("a plan's id", plan.id)
    check_budgets(plan.budgets)
    row = records.plan_row(plan)
    if find_plan(change.connection, plan.id) is None:
        change.connection.execute(sa.insert(table).values(row))
    elif replace:
        change.connection.execute(sa.update(table).filter_by(id=plan.id).values(row))
    else:
        raise AccountError(f"there is a plan {plan.id!r} already: change it with --replace")
    change.touch("plan", plan.id)
    change.remember("plan written", detail=row)
    return plan


def check_budgets(budgets: tuple[Budget, ...]) -> None:
    """Check that budgets can be kept.

    Raises:
        AccountError: One is below 0 or too large, is for a life, or two are for the same measure and window.
    """
    seen: set[tuple[str, str]] = set()
    for budget in budgets:
        name = f"{budget.measure}/{budget.window}"
        if budget.window is Window.LIFE:
            raise AccountError("a budget is per minute, day or month; life is for declared uses")
        if not 0 <= budget.limit <= _MAX:
            raise AccountError(f"the budget {name} must be from 0 to {_MAX}, got {budget.limit}")
        if (budget.measure, budget.window) in seen:
            raise AccountError(f"there are two budgets {name}")
        seen.add((budget.measure, budget.window))


def parse_budget(text: str) -> Budget:
    """Read a budget such as `requests/minute=60`.

    Raises:
        AccountError: It does not look like that.
    """
    name, _, limit = text.partition("=")
    measure, _, window = name.partition("/")
    windows = [w.value for w in Window if w is not Window.LIFE]
    measures = [m.value for m in Measure]
    if (
        measure not in measures
        or window not in windows
        or not limit.isascii()
        or not limit.isdigit()
    ):
        raise AccountError(
            f"a budget looks like requests/minute=60, with {', '.join(measures)} per "
            f"{', '.join(windows)}, got {text!r}"
        )
    return Budget(Measure(measure), Window(window), int(limit))


def plan(connection: sa.Connection, id: str) -> Plan:
    """Read a plan.

    Raises:
        AccountError: There is none of that id.
    """
    found = find_plan(connection, id)
    if found is None:
        raise NoSuchError(f"there is no plan {id!r}: limbeck guard plan list shows them")
    return found


def find_plan(connection: sa.Connection, id: str) -> Plan | None:
    """Read a plan, if it is there."""
    row = connection.execute(sa.select(table).filter_by(id=id)).mappings().first()
    return None if row is None else records.plan(row)


def plans(connection: sa.Connection) -> list[Plan]:
    """List plans by id."""
    rows = connection.execute(sa.select(table).order_by(table.c.id)).mappings()
    return [records.plan(row) for row in rows]
