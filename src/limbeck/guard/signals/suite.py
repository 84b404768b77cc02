"""Hits on known test suites: does a request contain an item that the operator has a sketch of?

Benchmark runners hit on nearly every request; chats and pipelines almost never, red-teamers on their own suites. A copier
may ask a suite's items as well: that buys the benchmark lane, where answers are short and repeats bounded.
"""

import csv
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from limbeck.artefact import sha256_bytes, write_bytes
from limbeck.errors import GuardError
from limbeck.guard.sketch import Hashes, Sketcher, fingerprints, words_of

LEAST_WORDS = 4
"""Items of fewer words are left out: `What is 2 plus 3?` is everybody's."""
FIELDS = ("text", "question", "prompt", "input", "problem", "query")
"""Where an item's text is looked for in a record, in this order."""


@dataclass(frozen=True, slots=True)
class Suite:
    """Keyed fingerprints of a suite's items, ascending; holds no text."""

    name: str
    items: int
    marks: Hashes
    key: str
    """Names the key that made them."""


def build(name: str, texts: Iterable[str], sketcher: Sketcher) -> Suite:
    """Sketch the items of a suite.

    Raises:
        GuardError: No item is long enough.
    """
    marks: set[int] = set()
    items = 0
    for text in texts:
        words = words_of(text)
        if len(words) >= LEAST_WORDS:
            items += 1
            marks.update(fingerprints(sketcher.shingles(words)).tolist())
    if items == 0:
        raise GuardError(f"suite {name!r} has no item of at least {LEAST_WORDS} words")
    return Suite(name, items, np.array(sorted(marks), np.uint64), sketcher.fingerprint)


def hits(marks: Hashes, suites: Sequence[Suite]) -> float:
    """Return the largest share of a request's fingerprints that one suite holds."""
    if not len(marks):
        return 0.0
    best = 0.0
    for suite in suites:
        at = np.searchsorted(suite.marks, marks)
        at[at == len(suite.marks)] = 0
        best = max(best, float((suite.marks[at] == marks).mean()))
    return best


def save(suite: Suite, path: Path) -> str:
    """Write a suite as one JSON header line and the fingerprints, little-endian; return its SHA-256."""
    header = {
        "kind": "limbeck-suite",
        "version": 1,
        "name": suite.name,
        "items": suite.items,
        "key": suite.key,
    }
    data = json.dumps(header, sort_keys=True).encode() + b"\n" + suite.marks.astype("<u8").tobytes()
    write_bytes(path, data)
    return sha256_bytes(data)


def load(path: Path, sketcher: Sketcher) -> Suite:
    """Read a suite that `save` wrote.

    Raises:
        GuardError: It is missing, no suite, or was made under another key.
    """
    try:
        first, _, rest = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise GuardError(f"suite {path} cannot be read: {error.strerror or error}") from None
    try:
        header = json.loads(first)
        if header["kind"] != "limbeck-suite" or header["version"] != 1 or len(rest) % 8:
            raise KeyError("kind")
        suite = Suite(
            str(header["name"]),
            int(header["items"]),
            np.frombuffer(rest, "<u8"),
            str(header["key"]),
        )
    except (ValueError, KeyError, TypeError):
        raise GuardError(
            f"{path} is no suite of version 1; make one with `limbeck guard suite build`"
        ) from None
    if suite.key != sketcher.fingerprint:
        raise GuardError(
            f"suite {path} was made under another secret ({suite.key}, not {sketcher.fingerprint}); build it again"
        )
    return suite


def read_items(path: Path, field: str | None = None) -> Iterator[str]:
    """Yield the texts of a suite's file: JSON lines, CSV, or plain text with one item a line; `.gz` is unpacked.

    Raises:
        GuardError: The file is missing, or a record lacks its text; names the line.
    """
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    try:
        with _text(path) as file:
            if kind in {".jsonl", ".ndjson"}:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _item(
                            _record(line, f"{path} line {number}"), field, f"{path} line {number}"
                        )
            elif kind == ".csv":
                for row in (rows := csv.DictReader(file)):
                    yield _item(row, field, f"{path} line {rows.line_num}")
            else:
                yield from (line.strip() for line in file if line.strip())
    except OSError as error:
        raise GuardError(f"suite file {path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, EOFError, zlib.error, csv.Error) as error:
        raise GuardError(f"suite file {path} is no text in UTF-8: {error}") from None


def _text(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        import gzip

        return cast("io.TextIOBase", gzip.open(path, "rt", encoding="utf-8"))
    return cast("io.TextIOBase", path.open(encoding="utf-8", newline=""))


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        raise GuardError(f"{where}: not JSON") from None
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise GuardError(f"{where}: an item must be an object or a string")
    return cast("dict[str, Any]", value)


def _item(
    record: dict[str, Any] | dict[str | Any, str | Any], field: str | None, where: str
) -> str:
    names = FIELDS if field is None else (field,)
    for name in names:
        if isinstance(text := record.get(name), str):
            return text
    raise GuardError(f"{where}: no text in {', '.join(names)}; name it with --field")
