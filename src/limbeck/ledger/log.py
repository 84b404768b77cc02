"""The append-only log: one writer, one transaction, one signature and one wait for the disk a batch."""

import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from limbeck.errors import LedgerError, RunError
from limbeck.ledger.checkpoint import Checkpoint, verify_checkpoint, write_checkpoint
from limbeck.ledger.encoding import to_time
from limbeck.ledger.heads import Head, heads_root
from limbeck.ledger.keys import Keys
from limbeck.ledger.merkle import Frontier, leaf_hash
from limbeck.ledger.pseudonym import THE_LOG, commitment, new_salt, opening, pseudonym
from limbeck.ledger.reading import Reading
from limbeck.ledger.record import HEADS, PURGE, Entry, Record, check_entry, read_leaf
from limbeck.ledger.tables import FORMAT, connect
from limbeck.lock import hold

_CACHED_ACCOUNTS = 50_000
PIN_MS = 3_600_000
SPACING_MS = 10_000
Clock = Callable[[], int]


class LedgerBusyError(LedgerError):
    """Another process writes to the log."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a batch became; it is on the disk."""

    first: int
    """Place of the batch's first record."""
    size: int
    """Records in the log after it."""
    checkpoint: str
    """The signed note over all of them."""


@dataclass(frozen=True, slots=True)
class _Chain:
    """How far an account is."""

    pseudonym: str
    count: int
    seq: int | None
    newest: bytes | None


@dataclass(slots=True)
class _State:
    """Where the log ends; thrown away and read again after a batch that failed."""

    frontier: Frontier
    time: int
    pin: int
    """Records up to the last pin."""
    pin_time: int
    newest: tuple[int, int, bool] | None
    """Size and time of the newest checkpoint, and whether it closes a pin."""
    kept: int | None
    """Time of the checkpoint before it."""

    def makes_room(self, spacing_ms: int) -> bool:
        """Say whether the newest checkpoint is so close to the one before it that the next may replace it."""
        if self.newest is None or self.kept is None or self.newest[2]:
            return False
        return self.newest[1] - self.kept < spacing_ms


@dataclass(slots=True)
class _Batch:
    """Rows of one transaction, before they are written."""

    frontier: Frontier
    records: list[tuple[int, bytes, int | None]]
    nodes: list[tuple[int, int, bytes]]
    chains: dict[str | None, _Chain]
    raws: list[tuple[int, str, bytes, str, int]]


def now_ms() -> int:
    """Return the machine's clock in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Log:
    """The one writer of a log's file; made by `open_log`. Not for several threads at once."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        keys: Keys,
        *,
        clock: Clock,
        pin_ms: int | None = PIN_MS,
        spacing_ms: int = SPACING_MS,
    ) -> None:
        """Go on with the log behind a connection that nobody else writes through."""
        self._db = connection
        self._path = path
        self._keys = keys
        self._clock = clock
        self._pin_ms = pin_ms
        self._spacing_ms = spacing_ms
        self._chains: dict[str | None, _Chain] = {}
        self._state: _State | None = None
        self.reading = Reading(connection)

    def begin(self) -> None:
        """Write down whose log this is, or check it; then check the log's end.

        Raises:
            LedgerError: The keys are not the log's, or its end was altered.
        """
        public = str(self._keys.signer.public)
        with self._transaction() as db:
            rows = (("format", FORMAT), ("public_key", public))
            db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", rows)
            found = dict(db.execute("SELECT name, value FROM meta"))
        if found["format"] != FORMAT:
            raise LedgerError(f"{self._path} has the format {found['format']}, not {FORMAT}")
        if found["public_key"] != public:
            raise LedgerError(
                f"{self._path} is the ledger of the key {found['public_key']}, not of {public}"
            )
        self._current()

    def append(self, entries: Sequence[Entry]) -> Receipt:
        """Record a batch: all of it is on the disk and signed when this returns, or nothing is.

        Args:
            entries: At least one; bigger batches cost less a record.

        Raises:
            LedgerError: An entry that is none, or a disk that is full or fails; nothing was recorded.
        """
        if not entries:
            raise LedgerError("a batch needs at least one record, got none")
        for entry in entries:
            check_entry(entry)
        return self._write(entries, pin=False)

    def now(self) -> int:
        """Return what time a record would get now, in milliseconds since 1970."""
        return max(self._clock(), self._current().time)

    def pin(self) -> Receipt:
        """Record how many records every account has; what is pinned cannot be left out of a bundle later."""
        return self._write((), pin=True)

    def sign(self) -> Receipt:
        """Return the newest checkpoint; a log without records gets its first, over nothing."""
        state = self._current()
        size = state.frontier.size
        note = self.reading.last_checkpoint()
        return self._write((), pin=False) if note is None else Receipt(size, size, note)

    def purge(self) -> int:
        """Remove raw texts whose time is over, record how many, and return it. The tree does not change."""
        now = self._clock()
        with self._transaction() as db:
            gone = db.execute("DELETE FROM raw WHERE until <= ?", (now,)).rowcount
        if gone:
            self._write((Entry(PURGE, None, {"texts": gone}),), pin=False)
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # no copy stays in the journal
        return gone

    def _write(self, entries: Sequence[Entry], *, pin: bool) -> Receipt:
        state = self._current()
        clock = self._clock()
        now = max(clock, state.time)
        batch = _Batch(state.frontier.copy(), [], [], {}, [])
        first = state.frontier.size
        try:
            for entry in entries:
                self._add(batch, entry, now, clock)
            pinned = (
                self._pin(batch, state, now, clock) if pin or self._is_due(state, now) else None
            )
            note = write_checkpoint(self._checkpoint(batch.frontier, now), self._keys.signer)
            with self._transaction() as db:
                self._insert(db, batch, pinned)
                self._insert_checkpoint(db, state, batch.frontier.size, now, note, pinned)
        except BaseException:
            # Whether a commit that failed half-way is on the disk, only the disk knows.
            self._state = None
            raise
        self._remember(batch, state, now, pinned)
        return Receipt(first, batch.frontier.size, note)

    def _add(self, batch: _Batch, entry: Entry, now: int, clock: int) -> None:
        chain = batch.chains.get(entry.account) or self._chain(entry.account)
        seq = batch.frontier.size
        text = None
        if entry.raw is not None:
            salt = new_salt()
            text = commitment(salt, entry.raw.text)
            raw = entry.raw
            batch.raws.append((seq, raw.text, salt, raw.reason, raw.until))
        leaf = Record(
            seq,
            now,
            entry.kind,
            chain.pseudonym,
            chain.count + 1,
            None if chain.newest is None else chain.newest.hex(),
            entry.content,
            None if clock == now else clock,
            text,
        ).leaf()
        hashed = leaf_hash(leaf)
        batch.nodes += batch.frontier.append(hashed)
        batch.records.append((seq, leaf, chain.seq))
        batch.chains[entry.account] = _Chain(chain.pseudonym, chain.count + 1, seq, hashed)

    def _pin(self, batch: _Batch, state: _State, now: int, clock: int) -> bytes:
        """Add the record that pins the heads of all accounts since the last pin; return the entries."""
        words = "SELECT pseudonym, count, newest FROM account WHERE seq >= ?"
        rows = self._db.execute(words, (state.pin,))
        heads = {name: Head(name, count, newest) for name, count, newest in rows}
        for chain in batch.chains.values():
            if chain.newest is not None:
                heads[chain.pseudonym] = Head(chain.pseudonym, chain.count, chain.newest)
        heads.pop(THE_LOG, None)
        entries = sorted(head.entry() for head in heads.values())
        content = {
            "accounts": len(entries),
            "root": heads_root(entries).hex(),
            "since": state.pin,
        }
        self._add(batch, Entry(HEADS, None, content), now, clock)
        return b"".join(entries)

    def _chain(self, account: str | None) -> _Chain:
        if (known := self._chains.get(account)) is not None:
            return known
        if account is None:
            name = THE_LOG
        else:
            name = pseudonym(account, opening(self._keys.secret, account))
        words = "SELECT count, seq, newest FROM account WHERE pseudonym = ?"
        found = self._db.execute(words, (name,)).fetchone()
        return _Chain(name, 0, None, None) if found is None else _Chain(name, *found)

    def _insert(self, db: sqlite3.Connection, batch: _Batch, pinned: bytes | None) -> None:
        db.executemany("INSERT INTO record VALUES (?, ?, ?)", batch.records)
        db.executemany("INSERT INTO node VALUES (?, ?, ?)", batch.nodes)
        db.executemany("INSERT INTO raw VALUES (?, ?, ?, ?, ?)", batch.raws)
        db.executemany(
            "INSERT INTO account VALUES (?, ?, ?, ?) ON CONFLICT (pseudonym) DO UPDATE SET "
            "count = excluded.count, seq = excluded.seq, newest = excluded.newest",
            [(c.pseudonym, c.count, c.seq, c.newest) for c in batch.chains.values()],
        )
        if pinned is not None:
            db.execute("INSERT INTO pin VALUES (?, ?)", (batch.frontier.size - 1, pinned))

    def _insert_checkpoint(
        self,
        db: sqlite3.Connection,
        state: _State,
        size: int,
        now: int,
        note: str,
        pinned: bytes | None,
    ) -> None:
        if state.newest is not None and state.makes_room(self._spacing_ms):
            db.execute("DELETE FROM checkpoint WHERE size = ?", (state.newest[0],))
        row = (size, now, int(pinned is not None), note)
        db.execute("INSERT INTO checkpoint VALUES (?, ?, ?, ?)", row)

    def _remember(self, batch: _Batch, state: _State, now: int, pinned: bytes | None) -> None:
        if len(self._chains) > _CACHED_ACCOUNTS:
            self._chains.clear()
        self._chains.update(batch.chains)
        size = batch.frontier.size
        if state.newest is not None and not state.makes_room(self._spacing_ms):
            state.kept = state.newest[1]
        state.newest = (size, now, pinned is not None)
        state.frontier, state.time = batch.frontier, now
        if pinned is not None:
            state.pin, state.pin_time = size, now

    def _is_due(self, state: _State, now: int) -> bool:
        return self._pin_ms is not None and now - state.pin_time >= self._pin_ms

    def _checkpoint(self, frontier: Frontier, now: int) -> Checkpoint:
        return Checkpoint(self._keys.signer.public.name, frontier.size, frontier.root(), now)

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise LedgerError(self._failure(error)) from error
            raise

    def _failure(self, error: sqlite3.Error) -> str:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            return (
                f"the disk is full: {self._path} could not grow; nothing of this batch was recorded"
            )
        return f"{self._path} could not be written: {error}; nothing of this batch was acknowledged"

    def _current(self) -> _State:
        """Return where the log ends; read it from the disk, check it and sign what is not signed if need be."""
        if self._state is None:
            try:
                self._state = self._load()
            except sqlite3.Error as error:
                raise LedgerError(f"{self._path} could not be read: {error}") from error
        return self._state

    def _load(self) -> _State:
        self._chains.clear()
        size = self.reading.size()
        pins = self.reading.pins()
        pinned = pins[-1] if pins else None
        last = self._time_of(size - 1) if size else 0
        start = self._time_of(0) if size else self._clock()
        state = _State(
            self.reading.frontier(size),
            last,
            0 if pinned is None else pinned + 1,
            start if pinned is None else self._time_of(pinned),
            None,
            None,
        )
        self._check_end(state)
        return state

    def _check_end(self, state: _State) -> None:
        """Compare the records with the last checkpoint; sign records that lie after it."""
        words = "SELECT size, time, pinned, note FROM checkpoint ORDER BY size DESC LIMIT 2"
        rows = self._db.execute(words).fetchall()
        if rows:
            found = verify_checkpoint(rows[0][3], self._keys.signer.public)
            size = state.frontier.size
            if found.size > size:
                raise LedgerError(
                    f"{self._path} has {size} records, but its checkpoint of {to_time(found.time)} is over {found.size}"
                )
            if self.reading.frontier(found.size).root() != found.root:
                raise LedgerError(
                    f"the records of {self._path} are not those of its checkpoint at {found.size}; it was altered"
                )
            state.newest = (rows[0][0], rows[0][1], bool(rows[0][2]))
            state.kept = rows[1][1] if len(rows) > 1 else None
            state.time = max(state.time, found.time)
        if state.frontier.size and (not rows or rows[0][0] < state.frontier.size):
            self._sign_tail(state)

    def _sign_tail(self, state: _State) -> None:
        state.time = max(state.time, self._clock())
        note = write_checkpoint(self._checkpoint(state.frontier, state.time), self._keys.signer)
        with self._transaction() as db:
            row = (state.frontier.size, state.time, 0, note)
            db.execute("INSERT INTO checkpoint VALUES (?, ?, ?, ?)", row)
        state.kept = None if state.newest is None else state.newest[1]
        state.newest = (state.frontier.size, state.time, False)

    def _time_of(self, seq: int) -> int:
        return read_leaf(self.reading.leaf(seq), f"record {seq}").time


@contextmanager
def open_log(
    path: Path,
    keys: Keys,
    *,
    clock: Clock | None = None,
    pin_ms: int | None = PIN_MS,
    spacing_ms: int = SPACING_MS,
) -> Generator[Log]:
    """Open a log to write, or begin one; its end is checked against its last checkpoint.

    Args:
        path: The SQLite file; a lock lies beside it.
        keys: Those that the log was begun with.
        clock: Milliseconds since 1970; None takes the machine's.
        pin_ms: How often the heads of the accounts are pinned, by a batch that comes then; None only by `Log.pin`.
        spacing_ms: Of checkpoints closer than this only the last stays in the file.

    Raises:
        LedgerError: Another process writes there, the keys are not the log's, or its end was altered.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path), _connected(path) as connection:
        log = Log(
            connection, path, keys, clock=clock or now_ms, pin_ms=pin_ms, spacing_ms=spacing_ms
        )
        log.begin()
        yield log


@contextmanager
def _alone(path: Path) -> Generator[None]:
    lock = hold(path.with_name(f"{path.name}.lock"), f"the ledger {path}")
    try:
        lock.__enter__()
    except RunError as error:
        raise LedgerBusyError(str(error)) from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


@contextmanager
def _connected(path: Path) -> Generator[sqlite3.Connection]:
    try:
        connection = connect(path)
    except sqlite3.Error as error:
        raise LedgerError(f"{path} cannot be opened as a ledger: {error}") from error
    try:
        yield connection
    finally:
        connection.close()
