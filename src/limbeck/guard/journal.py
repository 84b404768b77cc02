"""The traffic log of a guard that runs: what its watch saw, in the order in which the watch saw it.

One file a day (UTC), opt-in. A line holds what was measured of a request and no text, which is all that a replay needs under
the same secret. Only for accounts that the operator names, with a reason and for so many days, it holds the text too.
"""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from limbeck.artefact import write_bytes
from limbeck.guard import asked
from limbeck.guard.asked import Measured
from limbeck.guard.decision import Decision
from limbeck.guard.observation import Observation
from limbeck.guard.traffic import from_observation, parse_clock, write_clock
from limbeck.guard.watch import Watch

_DAY_S = 86_400.0
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\.jsonl")
UNTIL, REASON = "text_until", "text_because"
"""Attributes of a line that holds a text: when it is taken out, and why it was kept."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """Why an account's texts are kept, and for how many days."""

    reason: str
    days: int


class Journal:
    """Owns the folder and the file of today. A line that cannot be written is counted in `lost`, never raised."""

    def __init__(
        self,
        folder: Path,
        *,
        days: int,
        texts: Mapping[str, Keeping] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open nothing yet.

        Args:
            folder: Made where it is not there, readable by its owner only.
            days: How long lines are kept.
            texts: Accounts whose texts are kept; users behind a reseller count as the reseller.
            clock: Seconds since 1970; says which day a line goes to.
        """
        self.lost = 0
        self.lack: str | None = None
        """Why lines are lost; None while they are not."""
        self._folder = folder
        self._days = days
        self._texts = dict(texts or {})
        self._clock = clock
        self._file: BinaryIO | None = None
        self._today = ""
        self._run = secrets.token_hex(6)
        self._lines = 0

    def write(self, seen: Observation, measured: Measured) -> None:
        """Take down one request."""
        self._lines += 1
        line = orjson.dumps(self._line(seen, measured), option=orjson.OPT_APPEND_NEWLINE)
        try:
            self._opened().write(line)
            self.lack = None
        except OSError as error:
            self._lose(error)

    def flush(self) -> None:
        """Hand what was written to the system, so that a keeper that is killed loses no more than came since."""
        if self._file is not None and _day(self._clock()) > self._today:
            self.close()
        elif self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                self._lose(error)

    def close(self) -> None:
        """Flush, and close today's file."""
        file, self._file, self._today = self._file, None, ""
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self._lose(error)

    def tidy(self) -> None:
        """Remove files whose days are over, and texts out of the others. The open file is left alone.

        It touches nothing that `write` touches, so that it may run in a thread beside it.

        Raises:
            OSError: The folder cannot be read or written.
        """
        now = self._clock()
        open_day = self._today or _day(now)
        oldest = _day(now - self._days * _DAY_S)
        for path in sorted(self._folder.glob("*.jsonl")):
            if not _DAY.fullmatch(path.name) or path.stem >= open_day:
                continue
            if path.stem < oldest:
                path.unlink()
            else:
                _without_old_texts(path, now)

    def _line(self, seen: Observation, measured: Measured) -> dict[str, Any]:
        keeping = self._texts.get(seen.account.partition("/")[0])
        values = from_observation(seen)
        values["id"] = f"{self._run}-{self._lines}"
        values["measured"] = asked.to_values(measured)
        if keeping is None:
            return _textless(values)
        until = datetime.fromtimestamp(self._clock(), UTC) + timedelta(days=keeping.days)
        more = {UNTIL: write_clock(until.timestamp()), REASON: keeping.reason}
        values["attributes"] = {**seen.attributes, **more}
        return values

    def _opened(self) -> BinaryIO:
        """The file of today; a clock that steps back goes on with the file that is open, so that order stays."""
        today = _day(self._clock())
        if self._file is None or today > self._today:
            self.close()
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / f"{today}.jsonl"
            _mend_end(path)
            file = path.open("ab", buffering=1 << 18)
            path.chmod(0o600)
            self._file, self._today = file, today
            return file
        return self._file

    def _lose(self, error: OSError) -> None:
        self.lost += 1
        self.lack = f"the traffic log {self._folder} cannot be written: {error.strerror or error}"


class Journaled:
    """A watch whose every request is taken down."""

    def __init__(self, watch: Watch, journal: Journal) -> None:
        self._watch = watch
        self._journal = journal

    def observe(self, observation: Observation) -> Decision:
        """Take in one request as the watch does; the log has it in the form that the watch weighs."""
        measured = self._watch.measure(observation)
        self._journal.write(observation, measured)
        return self._watch.weigh(observation, measured)


def _textless(values: dict[str, Any]) -> dict[str, Any]:
    """Return a line without any text: neither the question's nor the answer's."""
    kept = {name: value for name, value in values.items() if name != "request"}
    if kept.get("response"):
        kept["response"] = {k: v for k, v in kept["response"].items() if k != "text"}
    attributes = values.get("attributes") or {}
    kept["attributes"] = {k: v for k, v in attributes.items() if k not in {UNTIL, REASON}}
    return kept


def _without_old_texts(path: Path, now: float) -> None:
    """Write a file anew where texts in it are due to go; its order and what replay makes of it stay."""
    with path.open("rb") as file:
        if not any(_is_due(line, now) for line in file):
            return
    with path.open("rb") as file:
        lines = [_cut(line) if _is_due(line, now) else line for line in file]
    write_bytes(path, b"".join(lines))
    path.chmod(0o600)


def _is_due(line: bytes, now: float) -> bool:
    if b'"request"' not in line:  # nearly all: no text, nothing to parse
        return False
    until = orjson.loads(line).get("attributes", {}).get(UNTIL)
    return until is not None and parse_clock(until) <= now


def _cut(line: bytes) -> bytes:
    return orjson.dumps(_textless(orjson.loads(line)), option=orjson.OPT_APPEND_NEWLINE)


def _mend_end(path: Path) -> None:
    """Cut off half a line that a killed keeper left."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, 2)
        while end:
            start = max(0, end - (1 << 16))
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                file.truncate(start + at + 1)
                return
            end = start
        file.truncate(0)


def _day(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).date().isoformat()
