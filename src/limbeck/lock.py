"""One writer at a time: a lock on a file, which tells who holds it."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from limbeck.errors import RunError

_POLL_SECONDS = 0.2


@contextmanager
def hold(path: Path, what: str, *, patience: float = 0.0) -> Generator[None]:
    """Hold a lock for as long as the block runs; the system lets go of it when the process ends, however it ends.

    Processes of several machines exclude each other too where their file system passes `flock` on, as
    NFSv4, Lustre (mounted with `flock`) and GPFS do.

    Args:
        path: The lock's file; its folder must be there. It is empty whenever nobody holds it in good order.
        what: What the lock protects, for the error's sentence.
        patience: Seconds to wait for another holder.

    Raises:
        RunError: Somebody else holds it still; the sentence says who, where and since when.
    """
    with path.open("a+", encoding="utf-8") as file:  # "w" would wipe out the holder's name
        if not _taken(file, time.monotonic() + patience):
            raise RunError(
                f"another process is writing to {what} ({_holder(file)}); wait for it or stop it"
            )
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        _note(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        try:
            yield
        finally:
            _note(file, "")


def _taken(file: TextIO, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def _note(file: TextIO, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _holder(file: TextIO) -> str:
    """Name the holder; it may be just about to write its name, or to wipe it out."""
    file.seek(0)
    try:
        who = json.loads(file.read())
        return f"process {who['pid']} on {who['host']}, since {who['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has not left its name yet"
