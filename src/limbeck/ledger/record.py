"""One record of a ledger: what a caller hands in, and the canonical JSON that becomes a leaf of the tree."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from limbeck.errors import LedgerError
from limbeck.ledger.encoding import canonical, field, parse
from limbeck.ledger.merkle import leaf_hash
from limbeck.ledger.pseudonym import keyed_digest

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
_DIGEST = re.compile("[0-9a-f]{16,64}")
_NAME = re.compile("[a-z_]{1,32}")


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


def sketch(
    secret: bytes,
    account: str,
    texts: Mapping[str, str],
    facts: Mapping[str, int | float | bool] | None = None,
    raw: RawText | None = None,
) -> Entry:
    """Return the record of a request that holds keyed digests of its texts, and numbers, but no text.

    Args:
        secret: The ledger's; equal texts have equal digests under it, and nobody else can test a guess.
        account: Whose request it was.
        texts: By name, such as the prompt and the system prompt.
        facts: Numbers, such as tokens.
        raw: The text itself, only where the operator turned that on for this account.
    """
    digests = {name: keyed_digest(secret, text) for name, text in texts.items()}
    return Entry("sketch", account, {"digests": digests, "facts": dict(facts or {})}, raw)


def check_entry(entry: Entry) -> None:
    """Check what can be checked before anything is written.

    Raises:
        LedgerError: An unknown kind, a sketch that could hold text, or a raw text without a reason.
    """
    if entry.kind not in KINDS:
        raise LedgerError(f"a record's kind must be one of {', '.join(KINDS)}; got {entry.kind!r}")
    if entry.kind == "sketch" and not _is_sketch(entry.content):
        raise LedgerError(
            "a sketch holds numbers and digests of 16 to 64 hexadecimal digits under plain names, and no text; "
            "make it with `sketch`"
        )
    if entry.raw is not None and not entry.raw.reason.strip():
        raise LedgerError("a raw text is kept only with a reason; got none")


def _is_sketch(value: Any) -> bool:
    """Say whether a sketch's content can hold no text of a request: numbers, keyed digests, and plain names of both."""
    if isinstance(value, str):
        return _DIGEST.fullmatch(value) is not None
    if isinstance(value, Mapping):
        named = cast("Mapping[Any, Any]", value)
        return all(isinstance(n, str) and _NAME.fullmatch(n) for n in named) and all(
            map(_is_sketch, named.values())
        )
    if isinstance(value, list | tuple):
        return all(map(_is_sketch, cast("Sequence[Any]", value)))
    return value is None or isinstance(value, int | float)


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
