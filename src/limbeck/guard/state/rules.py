"""The operator's rules of sanctions, kept in the database so that every worker and every command goes by the same."""

from dataclasses import asdict, fields, replace
from typing import Any

import sqlalchemy as sa

from limbeck.errors import AccountError
from limbeck.guard.sanction import Lapse, Mode, SanctionRules
from limbeck.guard.state.tables import setting as table
from limbeck.guard.state.writing import Writing

_NAME = "sanctions"
_NAMES = tuple(field.name for field in fields(SanctionRules))
_MAX_HOURS = 24 * 365.0


def sanction_rules(connection: sa.Connection) -> SanctionRules:
    """Read the rules; the defaults where none were set."""
    stored = read_setting(connection, _NAME) or {}
    return replace(SanctionRules(), **{name: _typed(name, v) for name, v in stored.items()})


def set_sanction_rules(change: Writing, **values: Any) -> SanctionRules:
    """Change some of the rules.

    Raises:
        AccountError: A rule is unknown, or its value is.
    """
    unknown = sorted(set(values) - set(_NAMES))
    if unknown:
        raise AccountError(f"there is no rule {unknown[0]!r}; there are {', '.join(_NAMES)}")
    typed = {name: _typed(name, value) for name, value in values.items()}
    rules = replace(sanction_rules(change.connection), **typed)
    write_setting(change, _NAME, asdict(rules))
    change.remember("rules changed", detail=asdict(rules))
    return rules


def read_setting(connection: sa.Connection, name: str) -> Any:
    """Read a setting's JSON, None if it was never written."""
    return connection.execute(sa.select(table.c.value).filter_by(name=name)).scalar_one_or_none()


def write_setting(change: Writing, name: str, value: Any) -> None:
    """Write a setting's JSON."""
    connection = change.connection
    changed = connection.execute(sa.update(table).filter_by(name=name).values(value=value))
    if changed.rowcount == 0:
        connection.execute(sa.insert(table).values(name=name, value=value))
    change.touch("setting", name)


def _typed(name: str, value: Any) -> Any:
    match name, value:
        case "mode", str() if value in list(Mode):
            return Mode(value)
        case "on_lapse", str() if value in list(Lapse):
            return Lapse(value)
        case "block_needs_sign_off", bool():
            return value
        case "block_needs_sign_off", "true" | "false":
            return value == "true"
        case "appeal_to", str():
            return value
        case "appeal_hours", _:
            return _hours(value)
        case _:
            choices = {"mode": list(Mode), "on_lapse": list(Lapse)}.get(name, ["true", "false"])
            raise AccountError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _hours(value: Any) -> float:
    try:
        hours = float(value)
    except (TypeError, ValueError):
        hours = -1.0
    if not 0 < hours <= _MAX_HOURS:
        raise AccountError(
            f"appeal_hours must be above 0 and at most {_MAX_HOURS:g}, got {value!r}"
        )
    return hours
