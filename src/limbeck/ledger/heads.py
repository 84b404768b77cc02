"""Heads: how many records every account has, and its newest, pinned in the log at intervals.

A chain of hashes shows that nothing is missing in the middle of an account's records, but not that its newest were left
out. So at intervals the log records the root of a tree over the accounts that got records since the pin before, sorted
by pseudonym, each with its count and its newest record's hash. One path shows an account's entry; two neighbouring
entries show that it has none, so no records in that stretch. An entry is one leaf of 56 bytes:

    pseudonym, 16 bytes | count, 8 bytes big-endian | leaf hash of the newest record, 32 bytes
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.errors import LedgerError
from limbeck.ledger.encoding import field, from_base64, hashes, to_base64
from limbeck.ledger.merkle import (
    EMPTY_ROOT,
    inclusion_proof,
    leaf_hash,
    over,
    root,
    shows_inclusion,
)

ENTRY_BYTES = 56
_NAME_BYTES = 16


@dataclass(frozen=True, slots=True)
class Head:
    """How far one account is."""

    account: str
    count: int
    newest: bytes
    """Leaf hash of its newest record."""

    def entry(self) -> bytes:
        """Return the 56 bytes of its leaf."""
        return bytes.fromhex(self.account) + self.count.to_bytes(8, "big") + self.newest


def read_entry(data: bytes) -> Head:
    """Read the 56 bytes of a leaf.

    Raises:
        LedgerError: Another number of bytes.
    """
    if len(data) != ENTRY_BYTES:
        raise LedgerError(f"an entry of the heads has {ENTRY_BYTES} bytes, got {len(data)}")
    return Head(data[:_NAME_BYTES].hex(), int.from_bytes(data[16:24], "big"), data[24:])


def heads_root(entries: Sequence[bytes]) -> bytes:
    """Return the root over entries that are sorted by pseudonym."""
    return root(leaf_hash(entry) for entry in entries)


def prove(account: str, entries: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the entry of an account with its path, or its neighbours with theirs if it has none; JSON."""
    name = bytes.fromhex(account)
    place = bisect_left(entries, name)
    found = place < len(entries) and entries[place][:_NAME_BYTES] == name
    places = [place] if found else [p for p in (place - 1, place) if 0 <= p < len(entries)]
    tree = over([leaf_hash(entry) for entry in entries])
    return [
        {
            "entry": to_base64(entries[p]),
            "path": [to_base64(h) for h in inclusion_proof(p, len(entries), tree)],
            "place": p,
        }
        for p in places
    ]


def check(account: str, proof: Sequence[Any], size: int, top: bytes, what: str) -> Head | None:
    """Return the head that a proof shows; None where it shows that the account has none in this stretch.

    Raises:
        LedgerError: The proof shows neither.
    """
    shown = [_shown(row, size, top, what) for row in proof]
    names = [head.account for _, head in shown]
    if names == [account]:
        return shown[0][1]
    if size == 0 and top != EMPTY_ROOT:
        raise LedgerError(f"{what} is about no accounts, but its root is over some")
    if _is_gap(account, [place for place, _ in shown], names, size):
        return None
    raise LedgerError(
        f"{what} shows neither that the account has records there nor that it has none"
    )


def _is_gap(account: str, places: list[int], names: list[str], size: int) -> bool:
    """Say whether the account would stand between neighbours, before the first or after the last."""
    if size == 0:
        return not places
    if len(places) == 2:
        return places[1] == places[0] + 1 and names[0] < account < names[1]
    if len(places) != 1:
        return False
    return (places[0] == 0 and account < names[0]) or (places[0] == size - 1 and names[0] < account)


def _shown(row: Any, size: int, top: bytes, what: str) -> tuple[int, Head]:
    entry = from_base64(field(row, "entry", str, what), what)
    place = field(row, "place", int, what)
    if not shows_inclusion(leaf_hash(entry), place, size, hashes(row, "path", what), top):
        raise LedgerError(f"{what} has an entry that is not in the tree of heads")
    return place, read_entry(entry)
