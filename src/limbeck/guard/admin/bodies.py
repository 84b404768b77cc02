"""What may be sent to the admin API. An unknown field is an error."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

_ID = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_DOMAIN = r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)+$"
_LAST = 253_370_764_799.0
MAX_LIMIT = (1 << 53) - 1


def whole(value: object) -> object:
    """Return a number without a fraction as an int: JSON does not tell 7.0 from 7."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Id = Annotated[str, StringConstraints(pattern=_ID, max_length=63)]
Text = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00]*$")]
LongText = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
User = Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00]*$")]
Domain = Annotated[str, StringConstraints(pattern=_DOMAIN, max_length=253)]
Moment = Annotated[float, Field(ge=0, le=_LAST, description="Seconds since 1970-01-01 UTC.")]
Amount = Annotated[int, Field(ge=0, le=MAX_LIMIT), BeforeValidator(whole)]
Count = Annotated[int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(whole)]
Words = Annotated[list[Word], Field(max_length=200)]


class Body(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Nothing(Body):
    """An empty object."""


class BudgetBody(Body):
    """One budget."""

    measure: Literal["requests", "tokens", "cost"]
    window: Literal["minute", "day", "month"]
    limit: Amount


Budgets = Annotated[list[BudgetBody], Field(max_length=9)]


class OrgBody(Body):
    """An organisation. Payment fingerprints are hashed before they are kept."""

    id: Id
    name: Text = ""
    domains: Annotated[list[Domain], Field(max_length=100)] = []
    payment: Words = []


class MarksBody(Body):
    """Marks by which an owner is known again."""

    domains: Annotated[list[Domain], Field(max_length=100)] = []
    payment: Words = []


class PlanBody(Body):
    """A plan, made or replaced."""

    models: Annotated[Words, Field(min_length=1)] = ["*"]
    capabilities: Words = []
    budgets: Budgets = []


class SubAccountsBody(Body):
    """How a reseller's users are named and budgeted."""

    budgets: Budgets = []
    required: bool = False


class AccountBody(Body):
    """An account."""

    org: Id
    plan: Id
    id: Id | None = None
    name: Text = ""
    sub_accounts: SubAccountsBody | None = None


class MoveBody(Body):
    """Another plan."""

    plan: Id


class KeyBody(Body):
    """A key."""

    label: Text = ""
    expires: Moment | None = None


class RotateBody(Body):
    """How long the old key opens beside the new one."""

    overlap_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = 86_400.0


class UseBody(Body):
    """A declared use; it starts now unless it says otherwise."""

    kind: Literal["evaluation", "distillation", "research"]
    expires: Moment
    starts: Moment | None = None
    models: Annotated[Words, Field(min_length=1)] = ["*"]
    endpoints: Annotated[Words, Field(min_length=1)] = ["*"]
    volume: Count | None = None
    purpose: Text = ""


class BlockBody(Body):
    """An entry of the block list. A payment fingerprint is hashed before it is kept."""

    kind: Literal["org", "payment", "domain"]
    value: Word
    clause: Text = ""
    reason: Text = ""
    expires: Moment | None = None


class WhoBody(Body):
    """The account itself, or one user behind a reseller."""

    user: User = ""
    reason: Text = ""


class VouchBody(Body):
    """One user behind a reseller."""

    user: Word


class ReasonBody(Body):
    """A reason code with its value."""

    code: Word
    value: Annotated[float, Field(allow_inf_nan=False)]
    detail: Text = ""


class ProposalBody(Body):
    """What a policy asks for, on which evidence: the hash of its record in the ledger."""

    action: Literal["allow", "throttle", "reduce", "challenge", "hold", "block"]
    clause: Text = ""
    evidence: Text = ""
    user: User = ""
    because: Annotated[list[ReasonBody], Field(max_length=100)] = []
    e_value: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    expires: Moment | None = None


class AppealBody(Body):
    """An appeal."""

    text: LongText
    user: User = ""


class DecisionBody(Body):
    """How an appeal is decided."""

    uphold: bool
    answer: LongText = ""


class RulesBody(Body):
    """The rules to change."""

    mode: Literal["shadow", "enforce"] | None = None
    block_needs_sign_off: bool | None = None
    appeal_hours: Annotated[float, Field(gt=0, le=8760)] | None = None
    on_lapse: Literal["lower", "lift", "keep"] | None = None
    appeal_to: Text | None = None


class AdminBody(Body):
    """An admin key, for a person."""

    name: Word
    role: Literal["read", "operate", "sign"] = "read"
    expires: Moment | None = None


class Query(BaseModel):
    """A request's query."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(Query):
    """Nothing."""


class PageQuery(Query):
    """A page of a list by id."""

    after: User = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class AccountsQuery(PageQuery):
    """A page of accounts, of one organisation or of all."""

    org: Id | None = None


class OfAccountQuery(Query):
    """Of one account, or of all."""

    account: Id | None = None


class StandingsQuery(Query):
    """All standings by evidence, or those that wait for a signature."""

    waiting: bool = False
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class AppealsQuery(OfAccountQuery):
    """Appeals, open ones only if asked."""

    open: bool = False


class UserQuery(Query):
    """The account itself, or one user behind a reseller."""

    user: User = ""


class EventsQuery(OfAccountQuery):
    """The newest events."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
