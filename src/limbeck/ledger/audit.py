"""Audit a whole log: what no bundle can show, since it needs every record."""

from dataclasses import dataclass

from limbeck.errors import LedgerError
from limbeck.ledger.checkpoint import Checkpoint, verify_checkpoint
from limbeck.ledger.encoding import to_time
from limbeck.ledger.heads import Head, heads_root
from limbeck.ledger.merkle import Frontier, leaf_hash
from limbeck.ledger.pseudonym import THE_LOG
from limbeck.ledger.reading import Reading
from limbeck.ledger.record import HEADS, Record, read_leaf


@dataclass(frozen=True, slots=True)
class Audited:
    """What was read and found to be sound."""

    records: int
    checkpoints: int
    pins: int


@dataclass(slots=True)
class _Walk:
    """What is known of the log so far while it is read from its beginning."""

    frontier: Frontier
    heads: dict[str, Head]
    changed: set[str]
    """Accounts that got records since the last pin."""
    time: int
    since: int
    pins: int


def audit_log(log: Reading) -> Audited:
    """Read every record; check the tree, all checkpoints, all accounts' chains, times and pins.

    Raises:
        LedgerError: Something does not hold; the sentence names the record or checkpoint.
    """
    walk = _Walk(Frontier(), {}, set(), 0, 0, 0)
    size, count = log.size(), 0
    for note in log.notes():
        checkpoint = verify_checkpoint(note, log.public_key())
        _read_to(log, walk, checkpoint.size)
        _check(walk, checkpoint)
        count += 1
    if walk.frontier.size != size:
        raise LedgerError(
            f"{size - walk.frontier.size} records at the end of the log are not signed"
        )
    return Audited(size, count, walk.pins)


def _read_to(log: Reading, walk: _Walk, size: int) -> None:
    for leaf in log.leaves(walk.frontier.size, size):
        seq = walk.frontier.size
        record = read_leaf(leaf, f"record {seq}")
        if record.seq != seq or record.time < walk.time:
            raise LedgerError(f"record {seq} is out of order")
        if record.kind == HEADS:
            _check_pin(walk, record)
        _follow(walk, record, leaf)
        walk.time = record.time
    if walk.frontier.size != size:
        raise LedgerError(f"the log lacks record {walk.frontier.size}, which a checkpoint covers")


def _follow(walk: _Walk, record: Record, leaf: bytes) -> None:
    head = walk.heads.get(record.account)
    count, newest = (0, None) if head is None else (head.count, head.newest.hex())
    if (record.count, record.previous) != (count + 1, newest):
        raise LedgerError(f"record {record.seq} does not follow its account's record before it")
    hashed = leaf_hash(leaf)
    walk.frontier.append(hashed)
    walk.heads[record.account] = Head(record.account, record.count, hashed)
    walk.changed.add(record.account)


def _check_pin(walk: _Walk, pin: Record) -> None:
    names = sorted(walk.changed - {THE_LOG})
    entries = [walk.heads[name].entry() for name in names]
    told = {"accounts": len(entries), "root": heads_root(entries).hex(), "since": walk.since}
    if pin.content != told:
        raise LedgerError(f"the pin at record {pin.seq} is not that of the records before it")
    walk.changed.clear()
    walk.since = pin.seq + 1
    walk.pins += 1


def _check(walk: _Walk, checkpoint: Checkpoint) -> None:
    if walk.frontier.root() != checkpoint.root:
        raise LedgerError(
            f"the records are not those of the checkpoint at {checkpoint.size}: the log was rewritten"
        )
    if checkpoint.time < walk.time:
        raise LedgerError(
            f"the checkpoint at {checkpoint.size} records is dated {to_time(checkpoint.time)}, before its records"
        )
    walk.time = checkpoint.time
