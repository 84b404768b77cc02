"""Text that a student was trained on, out of files that a user names."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from limbeck.errors import TaskError


def texts_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of the documents in a file: the strings of each JSON line, or a text as a whole.

    Args:
        path: JSONL by its suffix, otherwise plain text; `.gz` too.

    Raises:
        TaskError: The file is missing or damaged; the line is named.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TaskError(f"training text {path} cannot be read: {error}") from None
    if ".jsonl" not in path.suffixes:
        yield path.name, text
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            where = f"{path.name} line {number}"
            yield where, "\n\n".join(_strings(_json(line, where)))


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise TaskError(f"training text {where} is not JSON: {error}") from None


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in cast("dict[str, object]", value).values():
                yield from _strings(inner)
        case list():
            for inner in cast("list[object]", value):
                yield from _strings(inner)
        case _:
            return
