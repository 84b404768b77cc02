"""One record of a ledger: what a caller hands in, and the canonical JSON that becomes a leaf of the tree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.errors import LedgerError
from limbeck.ledger.encoding import canonical, field, parse
from limbeck.ledger.merkle import leaf_hash

HEADS = "heads"
PURGE = "purge"
KINDS = (
    "decision",
    "sketch",
    "sign-off",
    "appeal",
    "restore",
    "gap",
    "coin",
    "registration",
    "run",
)
"""What callers record. The log itself adds `heads` and `purge`."""
_OWN = (HEADS, PURGE)
_MAX_LEAF = 1 << 20


@dataclass(frozen=True, slots=True)
class RawText:
    """A text that is kept beside the record, for a stated reason and until a stated moment."""

    text: str
    reason: str
    until: int
    """Milliseconds since 1970; `Log.purge` removes it after that."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be recorded about one account. `account` None concerns the log itself, such as a gap."""

    kind: str
    account: str | None
    content: Mapping[str, Any]
    raw: RawText | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it stands in the log."""

    seq: int
    """Its place, from 0, in the whole log."""
    time: int
    """Milliseconds since 1970; never less than the record's before it."""
    kind: str
    account: str
    """A pseudonym."""
    count: int
    """How many records the account has up to this one, from 1."""
    previous: str | None
    """Leaf hash of the account's record before, in hexadecimal; None for its first."""
    content: Mapping[str, Any]
    clock: int | None = None
    """What the clock said where that was earlier than the record before; the clock had been set back."""
    text: str | None = None
    """Commitment to a raw text that was kept beside the record."""

    def leaf(self) -> bytes:
        """Return the bytes that are hashed into the tree.

        Raises:
            LedgerError: The content is not JSON, or more than 1 MiB.
        """
        value: dict[str, Any] = {
            "account": self.account,
            "content": self.content,
            "count": self.count,
            "kind": self.kind,
            "previous": self.previous,
            "seq": self.seq,
            "time": self.time,
        }
        if self.clock is not None:
            value["clock"] = self.clock
        if self.text is not None:
            value["text"] = self.text
        data = canonical(value)
        if len(data) > _MAX_LEAF:
            raise LedgerError(f"a record may have 1 MiB at the most, got {len(data)} bytes")
        return data


def check_entry(entry: Entry) -> None:
    """Check what can be checked before anything is written.

    Raises:
        LedgerError: An unknown kind, or a raw text without a reason.
    """
    if entry.kind not in KINDS:
        raise LedgerError(f"a record's kind must be one of {', '.join(KINDS)}; got {entry.kind!r}")
    if entry.raw is not None and not entry.raw.reason.strip():
        raise LedgerError("a raw text is kept only with a reason; got none")


def read_leaf(data: bytes, what: str = "a record") -> Record:
    """Read a leaf.

    Raises:
        LedgerError: It is not the canonical JSON of a record.
    """
    row = parse(data, what)
    previous = row.get("previous", "") if isinstance(row, Mapping) else ""
    record = Record(
        seq=field(row, "seq", int, what),
        time=field(row, "time", int, what),
        kind=field(row, "kind", str, what),
        account=field(row, "account", str, what),
        count=field(row, "count", int, what),
        previous=None if previous is None else field(row, "previous", str, what),
        content=field(row, "content", dict, what),
        clock=field(row, "clock", int, what) if "clock" in row else None,
        text=field(row, "text", str, what) if "text" in row else None,
    )
    if record.kind not in KINDS + _OWN:
        raise LedgerError(f"{what} has the unknown kind {record.kind!r}")
    if record.leaf() != data:
        raise LedgerError(f"{what} has fields that no record has")
    return record


def follows(record: Record, leaf: bytes | None, count: int) -> bool:
    """Say whether a record is the next of its account after the one with these leaf bytes and this count."""
    previous = None if leaf is None else leaf_hash(leaf).hex()
    return record.previous == previous and record.count == count + 1
