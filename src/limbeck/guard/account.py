"""Who may ask: organisations, plans, accounts, keys, declared uses, block lists, standings, appeals.

All values are frozen. Times are seconds since 1970-01-01 UTC, amounts are ints: requests, tokens, and cost in
millionths of the operator's currency unit.
"""

from dataclasses import dataclass
from enum import StrEnum

from limbeck.guard.decision import Action, Reason

ALL = ("*",)
"""Stands for every model, or every endpoint, that the gateway knows."""


class Measure(StrEnum):
    """What a budget counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    COST = "cost"


class Window(StrEnum):
    """Over which stretch of the UTC calendar a budget counts; LIFE is the whole of a declared use."""

    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"
    LIFE = "life"


class UseKind(StrEnum):
    """What a declared use is for."""

    EVALUATION = "evaluation"
    DISTILLATION = "distillation"
    RESEARCH = "research"


class BlockKind(StrEnum):
    """What a block entry names: an organisation, a payment fingerprint (its keyed hash), or a verified domain."""

    ORG = "org"
    PAYMENT = "payment"
    DOMAIN = "domain"


class AppealState(StrEnum):
    """Where an appeal stands. LAPSED: nobody decided it in time."""

    OPEN = "open"
    UPHELD = "upheld"
    REJECTED = "rejected"
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `limit` of a measure in each window of the calendar."""

    measure: Measure
    window: Window
    limit: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the accounts of a plan may do.

    `capabilities` names what the sealed interface lets through (`logprobs`, `logit_bias`, `n`, `seed`, `reasoning`, …),
    `models` the models that may be asked, or `*`. At most one budget for each measure and window.
    """

    id: str
    models: tuple[str, ...] = ALL
    capabilities: frozenset[str] = frozenset()
    budgets: tuple[Budget, ...] = ()


@dataclass(frozen=True, slots=True)
class Organisation:
    """An owner of accounts. `payment` holds keyed hashes of payment fingerprints, `domains` verified domains."""

    id: str
    name: str
    created: float
    payment: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SubAccounts:
    """How a reseller's requests name the user behind them, in the field `user`.

    `budgets` hold for each user apart, within the reseller's own. Where `required`, a request that names no
    user is refused.
    """

    budgets: tuple[Budget, ...] = ()
    required: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """Who is asked for, charged and judged as one. A reseller has `sub_accounts`."""

    id: str
    org: str
    plan: str
    created: float
    name: str = ""
    closed: float | None = None
    sub_accounts: SubAccounts | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as it is stored: never itself, only its id and `digest`, a keyed hash.

    It opens the account from `created` until it is `revoked` or `expires`.
    """

    id: str
    account: str
    created: float
    digest: bytes
    label: str = ""
    expires: float | None = None
    revoked: float | None = None
    replaces: str | None = None

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, account={self.account!r})"

    def opens(self, now: float) -> bool:
        """Tell whether the key is good at a time."""
        return (self.revoked is None or now < self.revoked) and (
            self.expires is None or now < self.expires
        )


@dataclass(frozen=True, slots=True)
class DeclaredUse:
    """What an account said it would do, and a named person approved.

    `volume` is how many requests it covers in all; None sets no bound.
    """

    id: str
    account: str
    kind: UseKind
    starts: float
    expires: float
    models: tuple[str, ...] = ALL
    endpoints: tuple[str, ...] = ALL
    volume: int | None = None
    purpose: str = ""
    approved_by: str | None = None
    withdrawn: float | None = None

    def covers(self, model: str, endpoint: str, now: float) -> bool:
        """Tell whether a request falls within the scope and the time; the volume is counted elsewhere."""
        return (
            self.approved_by is not None
            and self.starts <= now < self.expires
            and (self.withdrawn is None or now < self.withdrawn)
            and (model in self.models or self.models == ALL)
            and (endpoint in self.endpoints or self.endpoints == ALL)
        )


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """An owner who is not served, whatever key or account they come with. `value` is what `kind` says."""

    id: str
    kind: BlockKind
    value: str
    since: float
    by: str
    clause: str = ""
    reason: str = ""
    expires: float | None = None
    lifted: float | None = None

    def holds(self, now: float) -> bool:
        """Tell whether the entry is in force at a time."""
        return (self.lifted is None or now < self.lifted) and (
            self.expires is None or now < self.expires
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """What is done with the requests of an account, or of one user behind a reseller.

    `action` is in force; `proposed` is what the evidence asks for, which differs from it in shadow mode and while a
    block waits for its sign-off. `evidence` is the hash of the record that it rests on, `e_value` its weight.
    After `expires` nothing is in force. A user whom somebody vouched for is judged alone, whatever
    the reseller's standing.
    """

    account: str
    user: str = ""
    action: Action = Action.ALLOW
    proposed: Action = Action.ALLOW
    since: float | None = None
    clause: str = ""
    evidence: str = ""
    e_value: float = 1.0
    because: tuple[Reason, ...] = ()
    expires: float | None = None
    signed_off_by: str | None = None
    vouched_by: str | None = None

    def at(self, now: float) -> Action:
        """Return the action that is in force at a time."""
        return self.action if self.expires is None or now < self.expires else Action.ALLOW


@dataclass(frozen=True, slots=True)
class Appeal:
    """A sanctioned account's objection, and the time by which a person must have decided it."""

    id: str
    account: str
    filed: float
    due: float
    user: str = ""
    text: str = ""
    state: AppealState = AppealState.OPEN
    decided: float | None = None
    decided_by: str | None = None
    answer: str = ""

    def overdue(self, now: float) -> bool:
        """Tell whether it should have been decided."""
        return self.state is AppealState.OPEN and now >= self.due


@dataclass(frozen=True, slots=True)
class Holder:
    """Whoever holds a good key: everything that one request needs to know of its account.

    `action` is what is in force, `standing` and `block` say why. `user` is empty, or names the user behind a reseller.
    A holder is true from `valid_from` until `valid_until`; ask again for every request.
    """

    account: Account
    org: Organisation
    plan: Plan
    standing: Standing
    action: Action = Action.ALLOW
    uses: tuple[DeclaredUse, ...] = ()
    block: BlockEntry | None = None
    user: str = ""
    reseller: "Holder | None" = None
    key: str = ""
    valid_from: float = 0.0
    valid_until: float = float("inf")

    @property
    def id(self) -> str:
        """The account, and the user behind it if there is one: whose budgets and standing these are."""
        return f"{self.account.id}/{self.user}" if self.user else self.account.id

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The holder's own budgets. A user's requests count against the reseller's as well."""
        rules = self.account.sub_accounts
        if self.user and rules is not None:
            return rules.budgets
        return self.plan.budgets

    def use_for(self, model: str, endpoint: str, now: float) -> DeclaredUse | None:
        """Return the first declared use that covers a request, apart from its volume (see `Accounts.draw`)."""
        return next((use for use in self.uses if use.covers(model, endpoint, now)), None)
