"""Verify a trace bundle offline, against an accuser who holds every key and would like to win.

What holds when `verify_trace` returns, for the key that it names:

- every byte is what that key sealed, and the ledger inside is sound and complete (`limbeck.ledger.verify`);
- prompts, answers, key, statistic, references, level and the moment of the beacon were signed and recorded in the ledger
  before the beacon was public; so neither a key nor prompts, answers, references or a level can have been ground;
- the coins are all that were committed to, in that order, none edited, and every bit is what key and beacon give;
- all runs of the registration that the ledger has are here, no more than were registered, each at its share of the level;
- each run scored the coins of its accounts from the first on, and its d, its e-value and its verdict come out again.

What cannot be checked without the models or the network is said in `Traced.rests_on`. Only the standard library and
`cryptography` are used, here and in what is imported; a time-stamp of RFC 3161 needs `rfc3161-client`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from limbeck.artefact import sha256_bytes
from limbeck.errors import TraceError
from limbeck.ledger.bundle import CHECKPOINTS
from limbeck.ledger.bundle import FORMAT as LEDGER_FORMAT
from limbeck.ledger.checkpoint import read_checkpoint
from limbeck.ledger.container import from_zip
from limbeck.ledger.encoding import field, parse, to_time
from limbeck.ledger.note import PublicKey, witnessed_at
from limbeck.ledger.record import Record
from limbeck.ledger.sealed import Opened, open_files, open_sealed
from limbeck.ledger.verify import Verified, verify_opened
from limbeck.trace.coins import Coin, coins_root, key_commitment, pairs_root, parse_coin, toss
from limbeck.trace.registration import (
    TRACE,
    Registration,
    read_registration,
    read_statement,
)
from limbeck.trace.rerun import Facts, Run, rerun
from limbeck.trace.timeproof import is_over, stamped_at

FORMAT = "limbeck-trace-bundle/1"
_NOTES = {"registration.note", "committed.note", "sealed.note"}
_FILES = _NOTES | {"coins.jsonl", "coin.key", "ledger.zip", "environment.json", "README.txt"}
_PROOFS = {"registration.tsr", "registration.ots"}
COMMITTED = "limbeck coins, committed"
MOST_ALPHA = 0.05
"""What all registrations of one ledger may add up to, unless the reader grants more."""


@dataclass(frozen=True, slots=True)
class Traced:
    """What a sound bundle shows."""

    key: PublicKey
    registration: Registration
    recorded_at: int
    """When the ledger recorded the registration, in milliseconds since 1970, by the owner's clock."""
    seen_at: datetime | None
    """When a time-stamping authority or a witness that the reader trusts saw it; None where none was asked for."""
    beacon: str
    runs: tuple[Run, ...]
    other_registrations: int
    """Further registrations in the same ledger, each a further chance of a false accusation."""
    all_alpha: float
    """The chance of any false accusation over all of them, at the most: the sum of their levels."""
    rests_on: tuple[str, ...]
    """What was not checked and must be taken on trust or looked up, one sentence each."""


def verify_trace(
    path: Path,
    *,
    public_key: PublicKey | None = None,
    beacon: str | None = None,
    known: Sequence[str] = (),
    timestamp_roots: Path | None = None,
    witness: PublicKey | None = None,
    most_alpha: float = MOST_ALPHA,
) -> Traced:
    """Verify a bundle that `limbeck trace bundle` wrote.

    Args:
        path: A zip or a folder.
        public_key: The owner's key, from elsewhere.
        beacon: The value that the registered source published at the registered time, looked up there.
        known: Checkpoints of the owner's ledger, from elsewhere.
        timestamp_roots: Certificates of the time-stamping authorities that are trusted; the bundle must then hold a
            time-stamp from before the beacon.
        witness: The key of a witness that is trusted; it must have cosigned the ledger with the registration in it, before
            the beacon.
        most_alpha: What the levels of all registrations in the ledger may add up to: an owner who registers many coin
            files, or many keys for one, and shows the one that fits has that chance of a false accusation.

    Raises:
        LedgerError: A file, signature or the ledger does not hold.
        TraceError: The audit does not; the sentence says which thing.
    """
    opened = open_sealed(path, FORMAT, public_key)
    inner, ledger = _ledger(opened, known, pinned=public_key is not None)
    plan = read_registration(opened.text("registration.note"), opened.key)
    registered = _recorded(opened, ledger, plan)
    value = _beacon(opened, plan, registered.time, beacon)
    coins = _coins(opened, plan, value)
    runs = _runs(opened, ledger, plan, coins)
    _check_files(opened, runs)
    seen = [
        *_stamped(opened, plan, timestamp_roots),
        *_witnessed(inner, plan, registered.seq, witness),
    ]
    others, all_alpha = _others(ledger, most_alpha)
    return Traced(
        key=opened.key,
        registration=plan,
        recorded_at=registered.time,
        seen_at=min(seen, default=None),
        beacon=value,
        runs=runs,
        other_registrations=others,
        all_alpha=all_alpha,
        rests_on=tuple(
            _rests_on(
                opened,
                plan,
                others,
                pinned=public_key is not None,
                looked_up=beacon is not None,
                seen=bool(seen),
            )
        ),
    )


# The ledger, and what stands in it before the beacon


def _ledger(opened: Opened, known: Sequence[str], *, pinned: bool) -> tuple[Opened, Verified]:
    inner = open_files(
        from_zip(opened.file("ledger.zip")), LEDGER_FORMAT, opened.key, what="ledger.zip"
    )
    ledger = verify_opened(inner, known=known, pinned=pinned)
    if ledger.account != TRACE:
        raise TraceError(f"ledger.zip is about the account {ledger.account!r}, not {TRACE!r}")
    return inner, ledger


def _recorded(opened: Opened, ledger: Verified, plan: Registration) -> Record:
    """Return the ledger's record of the registration, after that of the commitment; both must be theirs."""
    digest = sha256_bytes(opened.file("committed.note"))
    if digest != plan.coins_sha256:
        raise TraceError("the registration is about other coins than the bundle holds")
    coins = _only(ledger, "coin", digest, "the commitment to the coins")
    registered = _only(
        ledger, "registration", sha256_bytes(opened.file("registration.note")), "the registration"
    )
    if registered.seq < coins.seq:
        raise TraceError("the ledger has the registration before the coins that it is about")
    told = registered.content
    if (told.get("coins_sha256"), told.get("alpha")) != (digest, plan.alpha):
        raise TraceError("the ledger recorded the registration with other coins or another level")
    plans = [r for r in ledger.records if r.kind == "registration"]
    if sum(r.content.get("coins_sha256") == digest for r in plans) > 1:
        raise TraceError(
            "several plans were registered for these coins, so one could be chosen to suit"
        )
    return registered


def _only(ledger: Verified, kind: str, digest: str, what: str) -> Record:
    found = [r for r in ledger.records if r.kind == kind and r.content.get("sha256") == digest]
    if not found:
        raise TraceError(f"{what} is not in the owner's ledger")
    return found[0]


def _others(ledger: Verified, most_alpha: float) -> tuple[int, float]:
    """Return how many other registrations the ledger has, and the sum of all levels."""
    alphas = [r.content.get("alpha") for r in ledger.records if r.kind == "registration"]
    if not all(isinstance(alpha, float) and 0 < alpha < 1 for alpha in alphas):
        raise TraceError("the ledger has a registration without a level")
    total = math.fsum(alphas)  # pyright: ignore[reportArgumentType]
    if total > most_alpha:
        raise TraceError(
            f"the ledger's {len(alphas)} registrations together allow a false accusation with a chance of "
            f"{total:g}, more than {most_alpha:g}: one of them could be shown because it fits"
        )
    return len(alphas) - 1, total


# The beacon and the coins


def _beacon(opened: Opened, plan: Registration, recorded_at: int, looked_up: str | None) -> str:
    """Return the beacon's value, public at the registered moment and after everything was recorded."""
    sealed = read_statement(opened.text("sealed.note"), opened.key, "limbeck coins, sealed")
    if field(sealed, "commitment_sha256", str, "sealed.note") != plan.coins_sha256:
        raise TraceError("sealed.note is about other coins than were committed to")
    told = sealed.get("beacon")
    if not isinstance(told, Mapping) or not told.get("value") or not told.get("time"):
        raise TraceError("the coins were sealed without a public beacon and its time")
    value, time = field(told, "value", str, "the beacon"), field(told, "time", str, "the beacon")
    at = _moment(time)
    if at != plan.beacon_at:
        raise TraceError(
            f"the beacon is of {to_time(at)}, but {to_time(plan.beacon_at)} was registered"
        )
    if at <= recorded_at or at <= _committed_at(opened):
        raise TraceError(
            f"the beacon of {to_time(at)} was public before the coins were committed to and recorded at "
            f"{to_time(recorded_at)}: key or answers could be chosen to suit it"
        )
    if looked_up is not None and looked_up != value:
        raise TraceError(f"the beacon is {value!r} in the bundle, but {looked_up!r} was published")
    return value


def _committed_at(opened: Opened) -> int:
    note = read_statement(opened.text("committed.note"), opened.key, COMMITTED)
    return _moment(field(note, "created", str, "committed.note"))


def _moment(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise TraceError(f"{text[:40]!r} is no time") from error
    if time.tzinfo is None:
        raise TraceError(f"the time {text} has no zone")
    return math.floor(time.timestamp() * 1000)


def _coins(opened: Opened, plan: Registration, beacon: str) -> list[Coin]:
    """Return the coins: all that were committed to, in order, with the bits that key and beacon give."""
    committed = read_statement(opened.text("committed.note"), opened.key, COMMITTED)
    sealed = read_statement(opened.text("sealed.note"), opened.key, "limbeck coins, sealed")
    opened.text("coins.jsonl")
    rows = opened.rows("coins.jsonl")
    coins = [_coin(line, name) for line, name in rows]
    if len({coin.pair.hash for coin in coins}) != len(coins):
        raise TraceError("a coin stands twice in coins.jsonl; its one bit must count once")
    if len(coins) != plan.coins or pairs_root(c.pair for c in coins) != committed.get("pairs_root"):
        raise TraceError(
            f"coins.jsonl holds {len(coins)} prompts and answers that are not the {plan.coins} that were committed to"
        )
    if len({coin.pair.account for coin in coins}) != plan.accounts:
        raise TraceError(f"the coins are not of {plan.accounts} accounts, as was registered")
    key = _key(opened)
    if key_commitment(key) != committed.get("key_sha256"):
        raise TraceError("coin.key is not the key that was committed to")
    for coin, (_, name) in zip(coins, rows, strict=True):
        if toss(key, beacon, coin.pair.hash) != coin.bit:
            raise TraceError(f"{name} has a bit that the key and the beacon do not give")
    if coins_root(coins) != sealed.get("root"):
        raise TraceError("the bits are not those that were signed")
    return coins


def _coin(line: bytes, name: str) -> Coin:
    """Return a coin whose line is spelt as it is written: another spelling may read otherwise to other eyes."""
    coin = parse_coin(line.decode(), name)
    if coin.line().encode("utf-8", "surrogatepass") != line:
        raise TraceError(f"{name} is spelt otherwise than coins are written: fields, order, spaces")
    return coin


def _key(opened: Opened) -> bytes:
    text = opened.text("coin.key")
    try:
        key = bytes.fromhex(text)
    except ValueError as error:
        raise TraceError("coin.key must hold 64 hexadecimal digits") from error
    if text != key.hex() + "\n":
        raise TraceError("coin.key must hold 64 hexadecimal digits in small letters and a newline")
    return key


# The runs


def _runs(
    opened: Opened, ledger: Verified, plan: Registration, coins: Sequence[Coin]
) -> tuple[Run, ...]:
    """Return all runs of the registration, computed again."""
    digest = sha256_bytes(opened.file("registration.note"))
    records = [
        r for r in ledger.records if r.kind == "run" and r.content.get("registration") == digest
    ]
    if [r.content.get("number") for r in records] != list(range(1, len(records) + 1)):
        raise TraceError("the ledger's runs are not numbered from 1 without a gap")
    if not records:
        raise TraceError("the ledger has no run of this registration")
    if any(r.time < plan.beacon_at for r in records):
        raise TraceError(
            "a run was recorded before the beacon was public: its value was known too early"
        )
    runs = tuple(_run(opened, n, r, plan, coins) for n, r in enumerate(records, start=1))
    _check_number(runs, plan)
    return runs


def _check_number(runs: Sequence[Run], plan: Registration) -> None:
    suspects = {run.identity for run in runs}
    if len(suspects) > plan.suspects:
        raise TraceError(f"{len(suspects)} suspects were tried, but {plan.suspects} registered")
    if len(runs) > plan.tests:
        raise TraceError(f"{len(runs)} runs were made, but {plan.tests} tests registered")


def _run(
    opened: Opened, number: int, record: Record, plan: Registration, coins: Sequence[Coin]
) -> Run:
    name = f"run-{number}.json"
    if name not in opened.files:
        raise TraceError(
            f"run {number} stands in the ledger, but {name} is not in the bundle: a run is hidden"
        )
    if sha256_bytes(opened.file(name)) != record.content.get("report_sha256"):
        raise TraceError(f"{name} is not the report that the ledger recorded as run {number}")
    facts = Facts(
        coins_root(coins),
        opened.key,
        read_statement(opened.text("committed.note"), opened.key, COMMITTED),
    )
    return rerun(parse(opened.file(name), name), number, plan, coins, facts)


# Time, and what is left to trust


def _check_files(opened: Opened, runs: Sequence[Run]) -> None:
    reports = {f"run-{run.number}.{kind}" for run in runs for kind in ("json", "html")}
    names = set(opened.files)
    if missing := sorted((_FILES | reports) - names):
        raise TraceError(f"the bundle lacks {', '.join(missing)}")
    if odd := sorted(names - _FILES - reports - _PROOFS):
        raise TraceError(f"the bundle holds what no ledger knows of: {', '.join(odd)}")


def _stamped(opened: Opened, plan: Registration, roots: Path | None) -> list[datetime]:
    """Return when an authority stamped the registration, which must be before the beacon; nothing if none was asked for."""
    note = opened.file("registration.note")
    proof = opened.files.get("registration.ots")
    if proof is not None and not is_over(proof, note):
        raise TraceError("registration.ots is not an OpenTimestamps proof over the registration")
    if roots is None:
        return []
    token = opened.files.get("registration.tsr")
    if token is None:
        raise TraceError("a time-stamp was wanted, but the bundle has no registration.tsr")
    return [_before(plan, stamped_at(token, note, roots), "was stamped")]


def _witnessed(
    inner: Opened, plan: Registration, seq: int, witness: PublicKey | None
) -> list[datetime]:
    """Return when a witness first saw the ledger with record `seq`, which must be before the beacon."""
    if witness is None:
        return []
    seen: list[int] = []
    for row, what in inner.values(CHECKPOINTS):
        checkpoint, note = read_checkpoint(field(row, "note", str, what))
        if checkpoint.size > seq and (at := witnessed_at(note, witness)) is not None:
            seen.append(at)
    if not seen:
        raise TraceError(f"{witness.name} cosigned no checkpoint that has the registration")
    return [_before(plan, datetime.fromtimestamp(min(seen), UTC), f"was seen by {witness.name}")]


def _before(plan: Registration, time: datetime, what: str) -> datetime:
    if time.timestamp() * 1000 >= plan.beacon_at:
        raise TraceError(
            f"the registration {what} at {time.isoformat()}, not before the beacon of {to_time(plan.beacon_at)}"
        )
    return time


def _rests_on(
    opened: Opened, plan: Registration, others: int, *, pinned: bool, looked_up: bool, seen: bool
) -> Iterator[str]:
    yield "the log-likelihoods in the runs; whoever has the models can measure them again"
    if not pinned:
        yield "the bundle's own word for whose key it is; give --public-key"
    if not looked_up:
        yield (
            f"the beacon's value; look up what {plan.beacon_source} published at {to_time(plan.beacon_at)} and give "
            "--beacon"
        )
    if not seen:
        held = " (it holds a time-stamp: give --timestamp-roots)"
        yield f"the owner's clock for the registration's time{held * ('registration.tsr' in opened.files)}"
        if "registration.ots" in opened.files:
            yield "registration.ots, which is over the registration; a Bitcoin node can check its block"
    if others:
        yield f"{others} further registrations in this ledger, each with its own level; ask for their bundles"
    if not plan.candidates:
        yield "the owner's word that no other suspects were tried in private; none were named beforehand"
    yield "the owner's word that this ledger is the only one where such audits are registered"
