"""Read a log: records, checkpoints, complete subtrees and proofs; while another process writes, too."""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from limbeck.errors import LedgerError
from limbeck.ledger.heads import ENTRY_BYTES
from limbeck.ledger.merkle import (
    KEPT_LEVELS,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    peaks,
    root,
)
from limbeck.ledger.note import PublicKey, parse_key
from limbeck.ledger.pseudonym import THE_LOG
from limbeck.ledger.tables import connect_to_read


class Reading:
    """One connection to a log's file; every method reads what is committed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read through a connection that somebody else closes."""
        self._db = connection

    def public_key(self) -> PublicKey:
        """Return the key whose checkpoints this log has."""
        return parse_key(self._one("SELECT value FROM meta WHERE name = 'public_key'")[0])

    def size(self) -> int:
        """Return the number of records."""
        return self._one("SELECT coalesce(max(seq) + 1, 0) FROM record")[0]

    def leaf(self, seq: int) -> bytes:
        """Return the bytes of a record.

        Raises:
            LedgerError: There is none at this place.
        """
        found = self._db.execute("SELECT leaf FROM record WHERE seq = ?", (seq,)).fetchone()
        if found is None:
            raise LedgerError(f"the ledger has no record {seq}")
        return _bytes(found[0])

    def leaves(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of the records from start up to end, in order."""
        words = "SELECT leaf FROM record WHERE seq >= ? AND seq < ? ORDER BY seq"
        for (leaf,) in self._db.execute(words, (start, end)):
            yield _bytes(leaf)

    def newest_of(self, pseudonym: str) -> Iterator[int]:
        """Yield the places of an account's records, newest first; each is looked up when it is asked for."""
        words = "SELECT seq FROM account WHERE pseudonym = ?"
        at = self._db.execute(words, (pseudonym,)).fetchone()
        while at is not None and at[0] is not None:
            yield at[0]
            at = self._one("SELECT back FROM record WHERE seq = ?", at[0])

    def of_account(self, pseudonym: str, size: int) -> list[int]:
        """Return the places of an account's records among the first `size`, in order."""
        return [seq for seq in self.newest_of(pseudonym) if seq < size][::-1]

    def accounts(self) -> int:
        """Return how many accounts have records."""
        return self._one("SELECT count(*) FROM account WHERE pseudonym <> ?", THE_LOG)[0]

    def last_checkpoint(self) -> str | None:
        """Return the newest checkpoint's note."""
        return self._note("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1")

    def checkpoint_at(self, size: int) -> str | None:
        """Return the checkpoint's note at exactly this size."""
        return self._note("SELECT note FROM checkpoint WHERE size = ?", size)

    def checkpoint_before(self, seq: int) -> str | None:
        """Return the last checkpoint that does not hold record `seq` yet."""
        words = "SELECT note FROM checkpoint WHERE size <= ? ORDER BY size DESC LIMIT 1"
        return self._note(words, seq)

    def checkpoint_over(self, seq: int) -> str | None:
        """Return the first checkpoint that holds record `seq`."""
        words = "SELECT note FROM checkpoint WHERE size > ? ORDER BY size LIMIT 1"
        return self._note(words, seq)

    def notes(self) -> Iterator[str]:
        """Yield the notes of all checkpoints that are kept, oldest first."""
        for (note,) in self._db.execute("SELECT note FROM checkpoint ORDER BY size"):
            yield note

    def pins(self) -> list[int]:
        """Return the places of the records that pin the heads of the accounts, in order."""
        return [seq for (seq,) in self._db.execute("SELECT seq FROM pin ORDER BY seq")]

    def pinned(self, seq: int) -> list[bytes]:
        """Return the entries that the pin at `seq` has the root of, sorted by pseudonym."""
        (blob,) = self._one("SELECT entries FROM pin WHERE seq = ?", seq)
        return [blob[i : i + ENTRY_BYTES] for i in range(0, len(blob), ENTRY_BYTES)]

    def raw(self, seq: int) -> tuple[str, bytes] | None:
        """Return the raw text beside a record with its salt; None where there is none, or no longer."""
        return self._db.execute("SELECT text, salt FROM raw WHERE seq = ?", (seq,)).fetchone()

    def subtree(self, level: int, place: int) -> bytes:
        """Return the hash of a complete subtree; at most 255 hashes are computed for it."""
        base = level - level % KEPT_LEVELS
        start, end = place << (level - base), (place + 1) << (level - base)
        if base == 0:
            found = [leaf_hash(leaf) for leaf in self.leaves(start, end)]
        else:
            words = (
                "SELECT hash FROM node WHERE level = ? AND place >= ? AND place < ? ORDER BY place"
            )
            found = [h for (h,) in self._db.execute(words, (base, start, end))]
        if len(found) != end - start:
            raise LedgerError(
                f"the ledger lacks records between {place << level} and {(place + 1) << level}"
            )
        return root(found)

    def inclusion(self, seq: int, size: int) -> list[bytes]:
        """Return the path of record `seq` in the tree of `size` records."""
        return inclusion_proof(seq, size, self.subtree)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the path that shows the tree of `old` records to be the beginning of that of `new`."""
        return consistency_proof(old, new, self.subtree)

    def frontier(self, size: int) -> Frontier:
        """Return the edge of the tree over the first `size` records."""
        return Frontier(size, [self.subtree(level, place) for level, place in peaks(size)])

    def _one(self, words: str, *values: object) -> tuple[Any, ...]:
        found = self._db.execute(words, values).fetchone()
        if found is None:
            raise LedgerError("the ledger's file is damaged: a row that must be there is missing")
        return found

    def _note(self, words: str, *values: object) -> str | None:
        found = self._db.execute(words, values).fetchone()
        return None if found is None else found[0]


def _bytes(value: object) -> bytes:
    """Return a record's bytes; SQLite keeps values of any type in any column."""
    if not isinstance(value, bytes):
        raise LedgerError("the ledger's file was altered: a record is not bytes")
    return value


@contextmanager
def read_log(path: Path) -> Generator[Reading]:
    """Open a log to read; the block sees one state of it, whatever is written meanwhile.

    Raises:
        LedgerError: There is no log there, or its file is damaged.
    """
    connection = connect_to_read(path)
    try:
        connection.execute("BEGIN")
        yield Reading(connection)
    except sqlite3.Error as error:
        raise LedgerError(f"{path} could not be read: {error}") from error
    finally:
        connection.close()
