"""Pre-registration: what an audit will be, signed and put into the owner's ledger before the bits can be known.

Whoever holds the key could look first and then choose: the reference that fits, the accounts that lean the right way, the
level that is just reached. So all of that is fixed while the beacon is not yet public: the coins (by the note that
committed to them), the statistic with its bets and weights, the references by their hashes, the level, how many suspects
may be tried, and which value of which public source will be the beacon. What is tried afterwards is numbered in the
ledger, and a bundle holds all of it.

The level is shared: with S suspects, and with K accounts to be told apart, S (K + 1) tests may be made, each at alpha
divided by their number, so that the chance of any false accusation is at most alpha (Bonferroni, on Ville's inequality).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from limbeck.errors import LedgerError, TraceError
from limbeck.ledger.encoding import canonical, field, from_time, parse, to_time
from limbeck.ledger.note import PublicKey, Signer, is_signed, parse_note, sign

WHAT = "limbeck trace, registered"
TRACE = "limbeck trace"
"""The account of the owner's ledger under which all registrations and runs stand, whatever they are about."""
STATISTIC = "mixture e-process over sealed coins"
Weights = Literal["fitted", "one"]


@dataclass(frozen=True, slots=True)
class Named:
    """A model by its name and by what tells it apart: the hash of its weights, or its address."""

    name: str
    identity: str


@dataclass(frozen=True, slots=True)
class Registration:
    """An audit, before anything can be known of its outcome."""

    created: int
    """Milliseconds since 1970."""
    coins_sha256: str
    """Of the signed note that committed to the coins; it holds the root over all prompts and answers."""
    coins: int
    """How many were committed to: the planned number."""
    accounts: int
    """How many accounts they belong to."""
    statistic: str
    weights: Weights
    bets: tuple[float, ...]
    references: tuple[Named, ...]
    alpha: float
    suspects: int
    """How many suspects may be tried."""
    by_account: bool
    """Whether each account may be audited by itself as well."""
    candidates: tuple[str, ...]
    """Names of the suspects where they are known; others may not be tried then."""
    beacon_source: str
    """Who publishes the beacon, so that anybody can look its value up."""
    beacon_at: int
    """When it will be published, in milliseconds since 1970; after `created`."""

    @property
    def tests(self) -> int:
        """Return how many tests share the level."""
        return self.suspects * (self.accounts + 1 if self.by_account else 1)

    @property
    def alpha_each(self) -> float:
        """Return the level of each test."""
        return self.alpha / self.tests


def check(plan: Registration) -> None:
    """Check that a plan can be carried out.

    Raises:
        TraceError: It cannot; the sentence says why.
    """
    if not 0 < plan.alpha < 1:
        raise TraceError(f"alpha must lie between 0 and 1, got {plan.alpha}")
    if plan.suspects < 1 or plan.coins < 1 or plan.accounts < 1:
        raise TraceError("a registration needs at least one suspect, one coin and one account")
    if len(plan.candidates) > plan.suspects:
        raise TraceError(
            f"{len(plan.candidates)} candidates are named, but only {plan.suspects} suspects registered"
        )
    if not plan.bets or not all(bet > 0 for bet in plan.bets):
        raise TraceError(f"bets must be above 0, got {list(plan.bets)}")
    if not plan.beacon_source.strip():
        raise TraceError("the beacon's source must be named, such as 'drand quicknet, round 1234'")
    if plan.beacon_at <= plan.created:
        raise TraceError(
            f"the beacon of {to_time(plan.beacon_at)} is public before the registration of "
            f"{to_time(plan.created)}; register one that is still to come"
        )


def write_registration(plan: Registration, signer: Signer) -> str:
    """Return the signed note of a registration.

    Raises:
        TraceError: The plan cannot be carried out.
    """
    check(plan)
    values = asdict(plan) | {
        "created": to_time(plan.created),
        "beacon_at": to_time(plan.beacon_at),
        "what": WHAT,
    }
    return sign(canonical(values).decode() + "\n", signer)


def read_registration(note: str, key: PublicKey) -> Registration:
    """Read a registration that this key signed.

    Raises:
        LedgerError: It is not of the format, or not signed by this key.
        TraceError: The plan cannot be carried out.
    """
    row = read_statement(note, key, WHAT)
    what = "the registration"
    plan = Registration(
        created=from_time(field(row, "created", str, what), what),
        coins_sha256=field(row, "coins_sha256", str, what),
        coins=field(row, "coins", int, what),
        accounts=field(row, "accounts", int, what),
        statistic=field(row, "statistic", str, what),
        weights=weights_of(field(row, "weights", str, what)),
        bets=tuple(_numbers(field(row, "bets", list, what), what)),
        references=tuple(read_named(r, what) for r in field(row, "references", list, what)),
        alpha=field(row, "alpha", float, what),
        suspects=field(row, "suspects", int, what),
        by_account=field(row, "by_account", bool, what),
        candidates=tuple(str(name) for name in field(row, "candidates", list, what)),
        beacon_source=field(row, "beacon_source", str, what),
        beacon_at=from_time(field(row, "beacon_at", str, what), what),
    )
    check(plan)
    return plan


def read_statement(note: str, key: PublicKey, what: str) -> Mapping[str, Any]:
    """Return the JSON of a signed note that must begin with this `what`.

    Raises:
        LedgerError: Not of the format, not signed by this key, or about something else.
    """
    parsed = parse_note(note)
    if not is_signed(parsed, key):
        raise LedgerError(f"the note {what!r} has no valid signature of {key.name}")
    row = parse(parsed.text.removesuffix("\n").encode(), f"the note {what!r}")
    if field(row, "what", str, f"the note {what!r}") != what:
        raise LedgerError(f"a note says {row['what']!r} where {what!r} belongs")
    return row


def read_named(row: Any, what: str) -> Named:
    """Read a model's name and identity."""
    return Named(field(row, "name", str, what), field(row, "identity", str, what))


def weights_of(text: str) -> Weights:
    """Read how references are weighed.

    Raises:
        TraceError: Neither `fitted` nor `one`.
    """
    match text:
        case "fitted" | "one":
            return text
        case _:
            raise TraceError(f"weights must be fitted or one, got {text!r}")


def _numbers(values: Sequence[Any], what: str) -> list[float]:
    if not all(type(value) is float for value in values):
        raise TraceError(f"{what} must list numbers, got {list(values)!r}")
    return list(values)
