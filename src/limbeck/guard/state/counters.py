"""A worker's counters: what it has charged of each lease, in a file that outlives the process.

The file is mapped into memory. One process writes it, a few nanoseconds a number; when that process dies, however it
dies, the system still holds what it wrote, and whoever comes next reads exactly what had been charged. Only a
machine that stops takes the last numbers with it.

Layout: pairs of signed 64-bit integers in the machine's order, (lease id, charged); id 0 is a free pair. A pair is
claimed by writing the charge first and the id last, and freed by writing id 0, so that a kill between leaves no
wrong number. The file is locked (`flock`) for as long as its worker lives.
"""

import fcntl
import mmap
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from limbeck.errors import StateError

SUFFIX = ".shares"
_PAIR_BYTES = 16
_FIRST_PAIRS = 4096


class Counters:
    """Owns the file of one worker: `cells[2 * slot + 1]` is what was charged of the lease in a slot."""

    def __init__(self, folder: Path, worker: str) -> None:
        """Make the file, locked before anybody can see it.

        Raises:
            StateError: The folder cannot be written to.
        """
        self.path = folder / (worker + SUFFIX)
        hidden = folder / f".{worker}.new"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = hidden.open("x+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._map(_FIRST_PAIRS)
            hidden.rename(self.path)
        except OSError as error:
            raise StateError(f"cannot keep a worker's counters in {folder}: {error}") from error

    def claim(self, lease: int, charged: int = 0) -> int:
        """Give a lease a slot, and what was charged of it already.

        Raises:
            StateError: The file must grow and the disk is full.
        """
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self.cells[2 * slot + 1] = charged
        self.cells[2 * slot] = lease
        return slot

    def free(self, slot: int) -> None:
        """Take a slot back; the lease in it has been closed."""
        self.cells[2 * slot] = 0
        self._free.append(slot)

    def close(self) -> None:
        """Remove the file, when every lease in it is closed."""
        self.path.unlink(missing_ok=True)
        self._release()

    def _map(self, pairs: int) -> None:
        os.posix_fallocate(self._file.fileno(), 0, pairs * _PAIR_BYTES)
        self._memory = mmap.mmap(self._file.fileno(), pairs * _PAIR_BYTES)
        self.cells = memoryview(self._memory).cast("q")
        self._free = list(range(pairs - 1, -1, -1))

    def _grow(self) -> None:
        before = len(self.cells) // 2
        try:  # a full disk says so here, before the old map is gone
            os.posix_fallocate(self._file.fileno(), 0, 2 * before * _PAIR_BYTES)
        except OSError as error:
            raise StateError(f"{self.path} cannot grow: {error}") from error
        self.cells.release()
        self._memory.close()
        self._map(2 * before)
        self._free = self._free[
            :before
        ]  # the new pairs are the upper half, at the front of the list

    def _release(self) -> None:
        self.cells.release()
        self._memory.close()
        self._file.close()


def charged(path: Path) -> dict[int, int]:
    """Read what a worker had charged, by lease id."""
    content = path.read_bytes()
    cells = memoryview(content[: len(content) // _PAIR_BYTES * _PAIR_BYTES]).cast("q")
    return {cells[i]: cells[i + 1] for i in range(0, len(cells), 2) if cells[i]}


@contextmanager
def dead(path: Path) -> Generator[bool]:
    """Tell whether a file's worker has died; nobody else finds it dead for as long as the block runs."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield path.exists()  # another may have settled and removed it between opening and locking
    except FileNotFoundError:
        yield False
