"""The table `[state]` of guard.toml: where the accounts are, and what happens when they cannot be reached."""

import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from limbeck.errors import GuardError

CONFIG_NAME = "guard.toml"
DATABASE_VARIABLE = "LIMBECK_GUARD_DATABASE"
COUNTERS_VARIABLE = "LIMBECK_GUARD_COUNTERS"


class WhenGone(StrEnum):
    """What to do while a component cannot be reached: REFUSE fails closed, ALLOW fails open."""

    REFUSE = "refuse"
    ALLOW = "allow"


class LostLease(StrEnum):
    """What becomes of a lost machine's share of a budget.

    CHARGE counts it as spent, RELEASE gives back what was not reported.
    """

    CHARGE = "charge"
    RELEASE = "release"


class StateSettings(BaseModel):
    """Where the accounts are, and what happens when they cannot be reached."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: str = "sqlite:///state.db"
    """`sqlite:///PATH`, relative to the folder of guard.toml, or `postgresql://USER@HOST/NAME`."""
    counters: str | None = None
    """`redis://HOST/0` to keep the budgets there; None keeps them in the database."""
    pepper: str = "pepper"
    """The file of the secret under which keys are hashed, relative to the folder of guard.toml."""
    shares: str = "shares"
    """The folder of the workers' counters, relative to the folder of guard.toml; on a local disk, or in /dev/shm."""
    refresh_seconds: Annotated[float, Field(gt=0, le=60)] = 0.25
    """How often a worker asks for changes: a revoked key opens nothing after this and the time of one query."""
    stale_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How old the accounts in a worker's memory may become while the database cannot be reached."""
    accounts_when_gone: WhenGone = WhenGone.REFUSE
    """After `stale_seconds`: refuse every key, or go on with what was known last."""
    budgets_when_gone: WhenGone = WhenGone.REFUSE
    """When a worker's share of a budget is used up and the counters cannot be reached: refuse, or serve and charge later."""
    lease_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long a worker may spend its shares after it last reached the counters."""
    idle_seconds: Annotated[float, Field(gt=0)] = 2.0
    """A share that nobody used for so long is given back."""
    lost_seconds: Annotated[float, Field(gt=0)] = 60.0
    """A worker of another machine that was not heard of for so long is lost."""
    lost_lease: LostLease = LostLease.CHARGE
    """What becomes of a lost worker's shares. Those of a killed worker on this machine are known exactly either way."""


def load_settings(folder: Path, environment: Mapping[str, str] = os.environ) -> StateSettings:
    """Read `[state]` of the guard.toml in a folder; defaults where there is none.

    Args:
        folder: The guard's folder.
        environment: `LIMBECK_GUARD_DATABASE` and `LIMBECK_GUARD_COUNTERS` win over the file.

    Raises:
        GuardError: The file is no TOML, or a key or value of `[state]` is unknown.
    """
    path = folder / CONFIG_NAME
    try:
        table = tomllib.loads(path.read_text("utf-8")).get("state", {}) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GuardError(f"{path} is not valid TOML: {error}") from error
    for name, variable in (("database", DATABASE_VARIABLE), ("counters", COUNTERS_VARIABLE)):
        if value := environment.get(variable):
            table[name] = value
    return parse_settings(table, str(path))


def parse_settings(table: Mapping[str, object], where: str = "[state]") -> StateSettings:
    """Check the table `[state]`.

    Raises:
        GuardError: A key or value is unknown.
    """
    try:
        settings = StateSettings.model_validate(table)
    except ValidationError as error:
        raise GuardError(_sentence(error, where)) from error
    if settings.lost_seconds < 3 * settings.lease_seconds:
        raise GuardError(
            f"{where}: state.lost_seconds must be at least 3 times state.lease_seconds, so that nobody "
            f"is lost who may still spend; got {settings.lost_seconds:g} and {settings.lease_seconds:g}"
        )
    return settings


def _sentence(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(StateSettings.model_fields)
        return f"{where}: there is no key state.{key}; the keys are {known}"
    return f"{where}: state.{key}: {first['msg']}, got {first['input']!r}"
