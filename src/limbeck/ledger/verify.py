"""Verify an account's bundle offline: recompute every hash, path, signature, count and order, and believe nothing else.

What holds when `verify_account` returns, for the key that it names:

- every byte is what that key sealed;
- each record is in the tree whose root the key signed, at the place that it names, and every earlier checkpoint here is
  of a beginning of that tree: one log, not two, and nothing rewritten since;
- the account's records are chained and counted without a gap, in order of place and of time, and no record claims a
  time before the last checkpoint that lacks it or after the first that has it;
- each pin of the log either names the account's count and newest record as they are here, or shows that the account
  had no record in that stretch; the pins are without a gap and the last one closes the tree. So the records are all.

Only the standard library and `cryptography` are used, here and in what is imported.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.errors import LedgerError
from limbeck.ledger.bundle import (
    CHECKPOINTS,
    FORMAT,
    HEADS_PROOFS,
    LOG_RECORDS,
    POLICY,
    PROOFS,
    README,
    RECORDS,
    TEXTS,
)
from limbeck.ledger.checkpoint import Checkpoint, read_checkpoint, verify_checkpoint
from limbeck.ledger.encoding import field, from_base64, hash32, hashes, to_time
from limbeck.ledger.heads import check
from limbeck.ledger.merkle import EMPTY_ROOT, leaf_hash, shows_consistency, shows_inclusion
from limbeck.ledger.note import Note, PublicKey, is_signed, witnessed_at
from limbeck.ledger.pseudonym import THE_LOG, commitment, pseudonym
from limbeck.ledger.record import HEADS, Record, follows, read_leaf
from limbeck.ledger.sealed import Opened, open_sealed

_FILES = {RECORDS, LOG_RECORDS, PROOFS, CHECKPOINTS, HEADS_PROOFS, README}
_OPTIONAL = {POLICY, TEXTS}
_CLOCKS_DIFFER_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint of the bundle with its note."""

    checkpoint: Checkpoint
    note: Note


@dataclass(frozen=True, slots=True)
class Held:
    """A record of the bundle with its bytes."""

    record: Record
    leaf: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """What a sound bundle shows."""

    account: str
    key: PublicKey
    pinned: bool
    """Whether the key was given from elsewhere; if not, only the bundle itself says whose key it is."""
    records: tuple[Record, ...]
    kinds: Mapping[str, int]
    """How many records of each kind."""
    size: int
    """Records of the whole log."""
    until: int
    """Milliseconds since 1970: the account's records up to then are all here."""
    checkpoints: int
    known: int
    """Checkpoints from elsewhere that the log was shown to go on from."""
    witnessed: Mapping[str, int]
    """For each witness the seconds since 1970 at which it saw the last checkpoint that it signed."""


def verify_account(
    path: Path,
    *,
    public_key: PublicKey | None = None,
    known: Iterable[str] = (),
    witnesses: Iterable[PublicKey] = (),
) -> Verified:
    """Verify a bundle that `limbeck guard ledger export` wrote.

    Args:
        path: A zip or a folder.
        public_key: The ledger's key, from elsewhere.
        known: Checkpoints from elsewhere; each must be one that the bundle goes on from.
        witnesses: Keys whose cosignatures are wanted; at least one checkpoint must have a valid one of each.

    Raises:
        LedgerError: One thing does not hold; the sentence says which.
    """
    opened = open_sealed(path, FORMAT, public_key)
    return verify_opened(opened, known=known, witnesses=witnesses, pinned=public_key is not None)


def verify_opened(
    opened: Opened,
    *,
    known: Iterable[str] = (),
    witnesses: Iterable[PublicKey] = (),
    pinned: bool = False,
) -> Verified:
    """Verify an account's bundle that was opened already, such as one inside another bundle.

    Raises:
        LedgerError: As `verify_account` does.
    """
    _check_files(opened)
    name = _pseudonym(opened)
    signed = _checkpoints(opened)
    last = signed[-1].checkpoint
    if last.size != field(opened.about, "size", int, "the manifest"):
        raise LedgerError("the last checkpoint is not over as many records as the manifest says")
    mine = _chain(opened, RECORDS, name)
    own = _chain(opened, LOG_RECORDS, THE_LOG)
    both = sorted([*mine, *own], key=lambda held: held.record.seq)
    _check_inclusion(opened, both, last)
    _check_times(both, [s.checkpoint for s in signed])
    _check_pins(opened, name, mine, own, last.size)
    _check_texts(opened, mine)
    known = list(known)
    _check_known(signed, known, opened.key)
    records = tuple(held.record for held in mine)
    return Verified(
        account=field(opened.about, "account", str, "the manifest"),
        key=opened.key,
        pinned=pinned,
        records=records,
        kinds=dict(sorted(Counter(r.kind for r in records).items())),
        size=last.size,
        until=own[-1].record.time,
        checkpoints=len(signed),
        known=len(known),
        witnessed={w.name: _witnessed(signed, w) for w in witnesses},
    )


def _check_files(opened: Opened) -> None:
    names = set(opened.files)
    if missing := sorted(_FILES - names):
        raise LedgerError(f"the bundle lacks {', '.join(missing)}")
    if odd := sorted(names - _FILES - _OPTIONAL):
        raise LedgerError(f"the bundle holds files that no bundle has: {', '.join(odd)}")


def _pseudonym(opened: Opened) -> str:
    """Return the account's pseudonym, after opening it."""
    account = field(opened.about, "account", str, "the manifest")
    name = field(opened.about, "pseudonym", str, "the manifest")
    opened_by = hash32(field(opened.about, "opening", str, "the manifest"), "the opening")
    if pseudonym(account, opened_by) != name:
        raise LedgerError(f"the pseudonym {name} is not that of the account {account!r}")
    return name


def _checkpoints(opened: Opened) -> list[Signed]:
    """Return the checkpoints, each signed and shown to go on from the one before."""
    found: list[Signed] = []
    size, top, moment = 0, EMPTY_ROOT, 0
    for row, what in opened.values(CHECKPOINTS):
        text = field(row, "note", str, what)
        this = verify_checkpoint(text, opened.key)
        if this.size <= size:
            raise LedgerError(f"{what} is over {this.size} records after one over {size}")
        if this.time < moment:
            raise LedgerError(
                f"{what} is dated {to_time(this.time)}, before the one in front of it"
            )
        if not shows_consistency(size, top, this.size, this.root, hashes(row, "consistency", what)):
            raise LedgerError(
                f"the checkpoint at {this.size} records does not go on from the one at {size}: "
                "the log was rewritten or forked"
            )
        found.append(Signed(this, read_checkpoint(text)[1]))
        size, top, moment = this.size, this.root, this.time
    if not found:
        raise LedgerError("the bundle has no checkpoint")
    return found


def _chain(opened: Opened, name: str, account: str) -> list[Held]:
    """Return the records of a file, each of this account and the next after the one before it."""
    found: list[Held] = []
    for leaf, what in opened.rows(name):
        record = read_leaf(leaf, what)
        if record.account != account:
            raise LedgerError(f"{what} is a record of another account")
        before = found[-1] if found else None
        count = 0 if before is None else before.record.count
        if not follows(record, None if before is None else before.leaf, count):
            raise LedgerError(
                f"{what} is the account's record {record.count} and does not follow its record {count}: "
                "one was dropped, added or moved"
            )
        if before is not None and record.seq <= before.record.seq:
            raise LedgerError(f"{what} stands at place {record.seq}, not after the one before it")
        found.append(Held(record, leaf))
    if not found:
        raise LedgerError(f"{name} has no record")
    return found


def _check_inclusion(opened: Opened, both: Sequence[Held], last: Checkpoint) -> None:
    rows = opened.values(PROOFS)
    if len(rows) != len(both):
        raise LedgerError(f"the bundle has {len(both)} records, but {len(rows)} proofs")
    for held, (row, what) in zip(both, rows, strict=True):
        seq = held.record.seq
        if field(row, "seq", int, what) != seq:
            raise LedgerError(f"{what} is not the proof of record {seq}")
        path = hashes(row, "path", what)
        if not shows_inclusion(leaf_hash(held.leaf), seq, last.size, path, last.root):
            raise LedgerError(f"record {seq} is not in the log that was signed, or was changed")


def _check_times(both: Sequence[Held], checkpoints: Sequence[Checkpoint]) -> None:
    """Check that times rise with places, and lie between those of the checkpoints around each record."""
    sizes = [checkpoint.size for checkpoint in checkpoints]
    moment = 0
    for held in both:
        record = held.record
        after = bisect_right(sizes, record.seq)
        if record.time < moment:
            raise LedgerError(
                f"record {record.seq} is dated back: before the record in front of it"
            )
        if after and record.time < checkpoints[after - 1].time:
            raise LedgerError(
                f"record {record.seq} is dated back: {to_time(record.time)}, but the checkpoint of "
                f"{to_time(checkpoints[after - 1].time)} does not have it yet"
            )
        if record.time > checkpoints[after].time:
            raise LedgerError(
                f"record {record.seq} is dated {to_time(record.time)}, but the checkpoint of "
                f"{to_time(checkpoints[after].time)} has it already"
            )
        moment = record.time


def _check_pins(
    opened: Opened, name: str, mine: Sequence[Held], own: Sequence[Held], size: int
) -> None:
    """Check that the account's records are all: in every stretch between pins, and up to the end."""
    pins = [held.record for held in own if held.record.kind == HEADS]
    proofs = opened.values(HEADS_PROOFS)
    if len(pins) != len(proofs):
        raise LedgerError(
            f"the log has {len(pins)} pins, but {len(proofs)} proofs of them are here"
        )
    if not pins or pins[-1].seq != size - 1:
        raise LedgerError("the last pin does not close the log, so newer records may be missing")
    since = 0
    for pin, (proof, what) in zip(pins, proofs, strict=True):
        if field(pin.content, "since", int, what) != since:
            raise LedgerError(f"the pin at record {pin.seq} does not go on from the one before it")
        _check_pin(name, pin, proof, mine, what)
        since = pin.seq + 1


def _check_pin(name: str, pin: Record, proof: object, mine: Sequence[Held], what: str) -> None:
    since = field(pin.content, "since", int, what)
    stretch = [held for held in mine if since <= held.record.seq < pin.seq]
    if not isinstance(proof, list):
        raise LedgerError(f"{what} must be a list")
    count = field(pin.content, "accounts", int, what)
    head = check(name, proof, count, _root(pin, what), what)
    if head is None:
        if stretch:
            raise LedgerError(f"the pin at record {pin.seq} knows nothing of records that are here")
        return
    newest = stretch[-1] if stretch else None
    here = 0 if newest is None else newest.record.count
    if newest is None or head.count != here or head.newest != leaf_hash(newest.leaf):
        raise LedgerError(
            f"the pin at record {pin.seq} says that the account had {head.count} records then; "
            "the bundle has others: records were dropped"
        )


def _root(pin: Record, what: str) -> bytes:
    text = field(pin.content, "root", str, what)
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise LedgerError(f"the pin at record {pin.seq} has no root") from error


def _check_texts(opened: Opened, mine: Sequence[Held]) -> None:
    if TEXTS not in opened.files:
        return
    committed = {held.record.seq: held.record.text for held in mine}
    for row, what in opened.values(TEXTS):
        salt = from_base64(field(row, "salt", str, what), what)
        text, seq = field(row, "text", str, what), field(row, "seq", int, what)
        if commitment(salt, text) != committed.get(seq):
            raise LedgerError(f"{what} is not the text that record {seq} was committed to")


def _check_known(signed: Sequence[Signed], known: Sequence[str], key: PublicKey) -> None:
    """Check that each checkpoint from elsewhere is one of the bundle's: the log never showed two faces."""
    here = {s.checkpoint.size: s.checkpoint for s in signed}
    for text in known:
        other, note = read_checkpoint(text)
        if other.origin != key.name or not is_signed(note, key):
            raise LedgerError(
                f"the known checkpoint at {other.size} records is not signed by {key.name}"
            )
        mine = here.get(other.size)
        if mine is None:
            raise LedgerError(
                f"the bundle has no proof for the known checkpoint at {other.size} records; ask for one "
                "that was exported with --known"
            )
        if mine.root != other.root:
            raise LedgerError(
                f"the log was forked: {key.name} signed two different logs of {other.size} records"
            )


def _witnessed(signed: Sequence[Signed], witness: PublicKey) -> int:
    """Return when a witness saw the last checkpoint that it signed, in seconds since 1970."""
    seen = [(s.checkpoint, at) for s in signed if (at := witnessed_at(s.note, witness)) is not None]
    if not seen:
        raise LedgerError(f"no checkpoint has a valid signature of the witness {witness.name}")
    for checkpoint, at in seen:
        if checkpoint.time > (at + _CLOCKS_DIFFER_SECONDS) * 1000:
            raise LedgerError(
                f"the checkpoint at {checkpoint.size} records is dated {to_time(checkpoint.time)}, but "
                f"{witness.name} saw it at {to_time(at * 1000)}"
            )
    return seen[-1][1]
