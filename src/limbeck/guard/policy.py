"""What is done about evidence: named clauses from TOML, each a rung of the ladder of actions."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from limbeck.errors import GuardError
from limbeck.guard.decision import Action

DEFAULT = Path(__file__).parent / "policy.toml"


def _action(value: object) -> Action:
    known = [action.name.lower() for action in Action]
    if isinstance(value, Action):
        return value
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"an action is one of {', '.join(known)}, got {value!r}")
    return Action[value.upper()]


Rung = Annotated[Action, BeforeValidator(_action)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(_Section):
    """How much evidence an accusation takes."""

    alpha: float = Field(default=0.001, gt=0, lt=0.5)
    """False accusations at the most, in every honest class, per account and horizon."""
    calibration: str | None = None
    """The file that `limbeck guard fit` wrote, relative to the policy. None: evidence stays 1."""
    calibration_sha256: str | None = None
    """What the file must hash to; None takes it as it is."""


class Yield(_Section):
    """What counts as having been given much."""

    traces: int = Field(default=800, ge=1)
    """Novel answers that make a training set; about 800 curated traces suffice (arXiv 2508.09883)."""
    tokens: int = Field(default=800_000, ge=1)
    """The same in answer tokens."""


class Lane(_Section):
    """How a declared or recognised evaluation is served."""

    declared: tuple[str, ...] = ("evaluation", "benchmark")
    """Declared uses that open the lane."""
    suite_share: float = Field(default=0.9, gt=0, le=1)
    """Share of an account's requests that hit a known suite from which it is recognised."""
    repeats: int = Field(default=8, ge=1)
    """Answers to the same item at the most, on average: models, seeds and votes."""


class Memory(_Section):
    """What the watch may keep."""

    accounts: int = Field(default=50_000, ge=1)
    clusters: int = Field(default=50_000, ge=1)


class Clause(_Section):
    """One rung: all conditions that it names must hold."""

    name: str = Field(min_length=1)
    action: Rung
    e_value: float = Field(default=0.0, ge=0)
    """Evidence of at least this."""
    accuse: bool = False
    """Whether evidence of at least 1/alpha is asked for; required from `challenge` on."""
    spent: float = Field(default=0.0, ge=0)
    """Share of the yield budget that was released, at least."""

    @model_validator(mode="after")
    def _accuses_lawfully(self) -> "Clause":
        if self.action == Action.BLOCK:
            raise ValueError(
                f"clause {self.name!r}: `block` takes a named person's sign-off, not a policy; use hold"
            )
        if self.action >= Action.CHALLENGE and not self.accuse:
            raise ValueError(
                f"clause {self.name!r}: {self.action.name.lower()} accuses, so it needs accuse = true"
            )
        return self


class Policy(_Section):
    """The policy file; an unknown key is an error."""

    evidence: Evidence = Evidence()
    yield_: Yield = Field(default=Yield(), alias="yield")
    lane: Lane = Lane()
    memory: Memory = Memory()
    suites: tuple[str, ...] = ()
    """Files that `limbeck guard suite build` wrote, relative to the policy."""
    clauses: tuple[Clause, ...] = ()
    """The hardest clause that is met decides."""

    @model_validator(mode="after")
    def _names_differ(self) -> "Policy":
        names = [clause.name for clause in self.clauses]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two clauses are called {twice[0]!r}")
        return self


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of an account when a policy decides."""

    e_value: float
    spent: float
    """Share of the yield budget that was released, to the account or its cluster."""


def decide(policy: Policy, finding: Finding) -> tuple[Action, str]:
    """Return the hardest action whose conditions all hold, and its clause; ALLOW and "" where none does."""
    met = [clause for clause in policy.clauses if _holds(policy, clause, finding)]
    if not met:
        return Action.ALLOW, ""
    hardest = max(met, key=lambda clause: clause.action)
    return hardest.action, hardest.name


def _holds(policy: Policy, clause: Clause, finding: Finding) -> bool:
    limit = max(clause.e_value, 1.0 / policy.evidence.alpha if clause.accuse else 0.0)
    return finding.e_value >= limit * (1.0 - 1e-9) and finding.spent >= clause.spent


def load_policy(path: Path = DEFAULT) -> Policy:
    """Read a policy.

    Raises:
        GuardError: The file is missing, is no TOML, or holds a key or value that a policy cannot have; names it.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GuardError(f"policy {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GuardError(f"policy {path} is not TOML: {error}") from None
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise GuardError(f"policy {path}, {key}: {first['msg']}") from None
