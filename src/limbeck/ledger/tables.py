"""The SQLite file of a log: its tables, and connections that write or only read."""

import sqlite3
from pathlib import Path

from limbeck.errors import LedgerError

FORMAT = "limbeck-log/1"
_BUSY_SECONDS = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- back: the account's record before, so that an account is read without an index over all records
CREATE TABLE IF NOT EXISTS record (seq INTEGER PRIMARY KEY, leaf BLOB NOT NULL, back INTEGER);
-- complete subtrees of 256, 65536, ... leaves
CREATE TABLE IF NOT EXISTS node (level INTEGER, place INTEGER, hash BLOB NOT NULL,
  PRIMARY KEY (level, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS account (pseudonym TEXT PRIMARY KEY, count INTEGER NOT NULL, seq INTEGER NOT NULL,
  newest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoint (size INTEGER PRIMARY KEY, time INTEGER NOT NULL, pinned INTEGER NOT NULL,
  note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pin (seq INTEGER PRIMARY KEY, entries BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS raw (seq INTEGER PRIMARY KEY, text TEXT NOT NULL, salt BLOB NOT NULL,
  reason TEXT NOT NULL, until INTEGER NOT NULL);
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for writing and make its tables; every commit is on the disk when it returns."""
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")  # a purged text is overwritten, not only unlinked
    connection.executescript(_TABLES)
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the file for reading while another process may write.

    Raises:
        LedgerError: There is no log there.
    """
    if not path.is_file():
        raise LedgerError(f"{path} is no ledger: there is no such file")
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        found = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    except sqlite3.Error as error:
        connection.close()
        raise LedgerError(f"{path} is no ledger: {error}") from error
    if found != (FORMAT,):
        connection.close()
        raise LedgerError(f"{path} is no ledger of the format {FORMAT}")
    return connection
