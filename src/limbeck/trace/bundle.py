"""Register an audit before the bits exist, number its runs in the owner's ledger, and export all of it for a third party."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from limbeck.artefact import read_json, sha256_bytes, write_text
from limbeck.errors import TraceError
from limbeck.ledger.bundle import account_files
from limbeck.ledger.container import to_zip
from limbeck.ledger.encoding import canonical, field, to_time
from limbeck.ledger.keys import Keys
from limbeck.ledger.log import Log
from limbeck.ledger.pseudonym import opening, pseudonym
from limbeck.ledger.record import Entry, Record, read_leaf
from limbeck.ledger.sealed import seal
from limbeck.stats.coins import BETS
from limbeck.trace.registration import (
    STATISTIC,
    TRACE,
    Named,
    Registration,
    Weights,
    read_named,
    read_registration,
    write_registration,
)
from limbeck.trace.report import render_html
from limbeck.trace.sealing import (
    COINS,
    KEY,
    read_commitment,
    read_committed,
    read_pairs,
    read_sealed,
)

FORMAT = "limbeck-trace-bundle/1"
REGISTRATION = "registration.note"
COMMITTED, SEALED, LEDGER = "committed.note", "sealed.note", "ledger.zip"
ENVIRONMENT, README = "environment.json", "README.txt"
TIMESTAMP, OPENTIMESTAMPS = "registration.tsr", "registration.ots"
_PACKAGES = ("limbeck", "numpy", "scipy", "torch", "transformers", "cryptography")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the owner chooses; the rest of a registration is read off the coins."""

    references: tuple[Named, ...]
    beacon_source: str
    beacon_at: int
    """Milliseconds since 1970."""
    alpha: float = 1e-3
    weights: Weights = "fitted"
    suspects: int = 1
    by_account: bool = False
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bundled:
    """What a trace bundle holds."""

    path: Path
    runs: int
    registration: Registration


def register(coins: Path, plan: Plan, log: Log, keys: Keys) -> Registration:
    """Sign a plan for coins that were committed to and not sealed yet, and record both in the ledger.

    Args:
        coins: The coins' folder; `registration.note` is written into it, ready to be stamped.
        plan: What will be done.
        log: The owner's ledger.
        keys: The ledger's, which the coins were committed to with too.

    Raises:
        TraceError: The coins are sealed already or registered, other keys, or a plan that cannot be carried out.
    """
    commitment = read_commitment(coins)
    if commitment["public_key"] != str(keys.signer.public):
        raise TraceError(
            f"{coins} was committed to by {commitment['public_key']}, not with this ledger's key"
        )
    if commitment.get("sealed") is not None:
        raise TraceError(
            f"{coins} is sealed already: its bits are known, so no plan can be registered any more"
        )
    if (coins / REGISTRATION).exists():
        raise TraceError(f"{coins} is registered already; a plan is not changed")
    committed = commitment["committed"]
    registration = _registration(coins, plan, committed, log.now())
    note = write_registration(registration, keys.signer)
    content = {
        "alpha": plan.alpha,
        "coins_sha256": registration.coins_sha256,
        "sha256": sha256_bytes(note.encode()),
    }
    coin = {"phase": "committed", "sha256": registration.coins_sha256}
    log.append([Entry("coin", TRACE, coin), Entry("registration", TRACE, content)])
    write_text(coins / REGISTRATION, note)
    return registration


def _registration(coins: Path, plan: Plan, committed: str, now: int) -> Registration:
    accounts = [pair.account for pair in read_pairs(coins, read_committed(coins))]
    return Registration(
        created=now,
        coins_sha256=sha256_bytes(committed.encode()),
        coins=len(accounts),
        accounts=len(set(accounts)),
        statistic=STATISTIC,
        weights=plan.weights,
        bets=BETS,
        references=plan.references,
        alpha=plan.alpha,
        suspects=plan.suspects,
        by_account=plan.by_account,
        candidates=plan.candidates,
        beacon_source=plan.beacon_source,
        beacon_at=plan.beacon_at,
    )


def record_run(log: Log, keys: Keys, registration: str, report: Mapping[str, Any]) -> int:
    """Record an audit's report in the ledger as the next run of a registration; return its number, from 1.

    A report that is recorded already keeps its number.

    Args:
        log: The owner's ledger.
        keys: The ledger's.
        registration: The signed note.
        report: As `limbeck trace audit --out` wrote it.
    """
    digest = sha256_bytes(registration.encode())
    mine = [r for r in trace_records(log, keys) if _is_run_of(r, digest)]
    wanted = sha256_bytes(canonical(report))
    for record in mine:
        if record.content["report_sha256"] == wanted:
            return record.content["number"]
    content = {
        "accounts": list(report["audited_accounts"]),
        "number": len(mine) + 1,
        "registration": digest,
        "report_sha256": wanted,
        "suspect": dict(report["suspect"]),
    }
    log.append([Entry("run", TRACE, content)])
    return len(mine) + 1


def export_trace(
    coins: Path,
    reports: Sequence[Path],
    log: Log,
    keys: Keys,
    out: Path,
    *,
    timestamp: Path | None = None,
    opentimestamps: Path | None = None,
    known: Sequence[str] = (),
) -> Bundled:
    """Record what is not recorded yet, and write the bundle of a registered audit with all its runs.

    Args:
        coins: The coins' folder, registered and sealed.
        reports: The report.json of every run of the registration.
        log: The owner's ledger.
        keys: The ledger's.
        out: A zip's path, or a folder's.
        timestamp: An RFC 3161 response over `registration.note`.
        opentimestamps: An OpenTimestamps proof over it.
        known: Checkpoints of the ledger that the reader has.

    Raises:
        TraceError: Coins that do not hold, no registration, or a recorded run whose report is not here.
        LedgerError: The ledger does not hold.
    """
    sealed = read_sealed(coins)
    if sealed.key is None:
        raise TraceError(f"{coins / KEY} is missing; without it nobody can check a bit")
    note = _registered(coins)
    plan = read_registration(note, keys.signer.public)
    numbered = _number(reports, note, log, keys)
    log.pin()
    inner, _ = account_files(log.reading, keys, TRACE, known=known)
    commitment = read_commitment(coins)
    files = {
        REGISTRATION: note.encode(),
        COMMITTED: commitment["committed"].encode(),
        SEALED: commitment["sealed"].encode(),
        COINS: (coins / COINS).read_bytes(),
        KEY: (coins / KEY).read_bytes(),
        LEDGER: to_zip(inner),
        ENVIRONMENT: canonical(environment()),
        README: _readme(plan, len(numbered)).encode(),
    }
    for number, report in numbered.items():
        files[f"run-{number}.json"] = canonical(report)
        files[f"run-{number}.html"] = render_html(report).encode()
    for name, path in ((TIMESTAMP, timestamp), (OPENTIMESTAMPS, opentimestamps)):
        if path is not None:
            files[name] = path.read_bytes()
    seal(out, files, {"format": FORMAT, "made": to_time(log.now())}, keys.signer)
    return Bundled(out, len(numbered), plan)


def teacher_of(coins: Path) -> Named | None:
    """Return the model that answered, as the commitment names it; None where it has no hash of its weights."""
    teacher = read_committed(coins).teacher
    name, identity = teacher.get("name"), teacher.get("weights_sha256")
    return Named(name, identity) if isinstance(name, str) and isinstance(identity, str) else None


def trace_records(log: Log, keys: Keys) -> list[Record]:
    """Return what the ledger holds of registrations and runs, in order."""
    name = pseudonym(TRACE, opening(keys.secret, TRACE))
    places = log.reading.of_account(name, log.reading.size())
    return [read_leaf(log.reading.leaf(seq), f"record {seq}") for seq in places]


def environment() -> dict[str, Any]:
    """Return what the bundle was made with."""
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "machine": platform.machine(),
        "packages": versions,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _number(
    reports: Sequence[Path], note: str, log: Log, keys: Keys
) -> dict[int, Mapping[str, Any]]:
    """Return the reports by the number of their run; every recorded run must be among them."""
    numbered: dict[int, Mapping[str, Any]] = {}
    for path in reports:
        report = _report(path)
        numbered[record_run(log, keys, note, report)] = report
    digest = sha256_bytes(note.encode())
    recorded = {r.content["number"] for r in trace_records(log, keys) if _is_run_of(r, digest)}
    if missing := sorted(recorded - numbered.keys()):
        raise TraceError(
            f"the ledger has {len(recorded)} runs of this registration; give the report of run "
            f"{', '.join(map(str, missing))} too, for a bundle holds all of them"
        )
    if not numbered:
        raise TraceError("a bundle needs the report of at least one run; give it with --report")
    return dict(sorted(numbered.items()))


def _report(path: Path) -> Mapping[str, Any]:
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise TraceError(f"{path} is missing; `limbeck trace audit --out FOLDER` writes it")
    try:
        report = read_json(path)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path} is not JSON: {error}") from None
    if not isinstance(report, dict) or not isinstance(report.get("items"), list):
        raise TraceError(
            f"{path} is no report of an audit by log-likelihoods; only those can be verified coin by coin"
        )
    # A number in the ledger cannot be taken back, so what is no report must not get one.
    what = f"the report {path}"
    read_named(field(report, "suspect", dict, what), what)
    if not all(isinstance(a, str) for a in field(report, "audited_accounts", list, what)):
        raise TraceError(f"{what} must list names in 'audited_accounts'")
    return report


def _is_run_of(record: Record, registration: str) -> bool:
    return record.kind == "run" and record.content.get("registration") == registration


def _registered(coins: Path) -> str:
    path = coins / REGISTRATION
    if not path.is_file():
        raise TraceError(
            f"{coins} was never registered; `limbeck trace register` must come before the beacon"
        )
    return path.read_text(encoding="utf-8")


def _readme(plan: Registration, runs: int) -> str:
    return f"""\
TRACE BUNDLE: WAS A MODEL TRAINED ON THESE ANSWERS?

{plan.coins} prompts were each answered twice. A secret, fair coin, fixed before it could be known, decided which answer
was served. A model that never learned from the served answers cannot lean to them more than chance allows. This bundle
holds {runs} examination(s) of that lean, registered before the coins could be known.

To check it, offline, on any machine, without a graphics card and without trusting whoever sent it:

    pip install limbeck cryptography
    limbeck trace verify BUNDLE --public-key PUBLIC.txt --beacon VALUE

PUBLIC.txt is the owner's public key, got from elsewhere than from this bundle. VALUE is what

    {plan.beacon_source}

published at {to_time(plan.beacon_at)}; look it up there.

The verifier computes every bit, every statistic and the verdict again; what it prints counts, not the pages in here. It
cannot ask the models: the log-likelihoods in run-N.json are the examiner's, and whoever has the models can measure them
again with `limbeck trace audit`. Nor can it know the owner's clock: see what it says about time.

    {REGISTRATION:20} the plan, signed: coins, references, statistic, level, beacon
    {COMMITTED:20} the commitment to all prompts, answers and the key, signed
    {SEALED:20} the beacon and the outcome of all coins, signed
    {COINS:20} every prompt with both answers and its coin
    {KEY:20} the key of the coins, secret until now
    run-N.json           each run: log-likelihoods of every coin used; run-N.html is its report
    {LEDGER:20} the owner's ledger: all registrations and runs, by docs/ledger-format.md
    {TIMESTAMP:20} a time-stamp by a third party over {REGISTRATION}, if there is one
    {OPENTIMESTAMPS:20} the same by OpenTimestamps
    manifest.json        hashes of all files; manifest.sig is its signature
"""
