"""Owns the real texts that traffic is composed of, read once."""

import csv
import gzip
import io
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.errors import CorpusError

LONGEST = 2000
"""Characters of one prompt; what is longer is cut there, as the sets themselves do at other lengths."""
_SPACE = re.compile(r"\s+")


class Material:
    """The prompts and tasks below one folder; each file is read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        """Check that the folder is there.

        Raises:
            CorpusError: It holds no `traffic/prompts.jsonl.gz`.
        """
        if not (folder / "traffic" / "prompts.jsonl.gz").is_file():
            raise CorpusError(
                f"{folder} holds no traffic/prompts.jsonl.gz; give its folder as --data"
            )
        self._folder = folder
        self._items: dict[str, tuple[str, ...]] = {}

    @cached_property
    def _prompts(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self._rows("traffic/prompts.jsonl.gz"):
            text = row["text"].strip()[:LONGEST]
            if text:
                found.setdefault(row["family"], []).append(row | {"text": text})
        return found

    def prompts(self, family: str) -> tuple[str, ...]:
        """Return the distinct texts of a family of `traffic/prompts.jsonl.gz`, in the file's order."""
        key = f"prompts/{family}"
        if key not in self._items:
            rows = self._prompts.get(family)
            if rows is None:
                raise CorpusError(
                    f"no prompts of family {family!r}; there are {sorted(self._prompts)}"
                )
            self._items[key] = tuple(dict.fromkeys(row["text"] for row in rows))
        return self._items[key]

    def sources(self, family: str) -> dict[str, tuple[str, ...]]:
        """Return a family's texts by source, such as the tasks of BIG-bench."""
        found: dict[str, dict[str, None]] = {}
        for row in self._prompts[family]:
            found.setdefault(row["source"], {})[row["text"]] = None
        return {source: tuple(texts) for source, texts in found.items()}

    @cached_property
    def sessions(self) -> tuple[tuple[str, ...], ...]:
        """The user turns of each ShareGPT conversation, in order: the only real sessions."""
        found: dict[str, list[tuple[int, str]]] = {}
        for row in self._prompts["sharegpt"]:
            found.setdefault(row["session"], []).append((row["turn"], row["text"]))
        return tuple(tuple(text for _, text in sorted(turns)) for turns in found.values())

    def items(self, task: str) -> tuple[str, ...]:
        """Return the inputs of a labelled task or the passages of a text, by the file's stem."""
        if task not in self._items:
            self._items[task] = tuple(dict.fromkeys(READERS[task](self)))
        return self._items[task]

    def _rows(self, path: str) -> list[dict[str, Any]]:
        with gzip.open(self._folder / path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def _text(self, path: str) -> str:
        with gzip.open(self._folder / path, "rt", encoding="utf-8") as file:
            return file.read()

    def jsonl(self, *paths: str) -> list[str]:
        """Return the `text` (or `question`) of every row of some JSONL files."""
        return [row.get("text") or row["question"] for path in paths for row in self._rows(path)]

    def column(self, path: str, name: str) -> list[str]:
        """Return one column of a CSV file."""
        return [row[name] for row in csv.DictReader(io.StringIO(self._text(path)))]

    def passages(self, path: str, most: int = 700) -> list[str]:
        """Return a plain text cut into passages of whole lines, at most so many characters each."""
        found, held = list[str](), ""
        for line in self._text(path).splitlines():
            plain = _SPACE.sub(" ", line).strip()
            if len(held) + len(plain) > most and held:
                found.append(held[:most])
                held = ""
            held = f"{held} {plain}".strip()
        return [passage for passage in found if len(passage) > most // 3]

    def clinc(self) -> list[str]:
        """Return the utterances of CLINC150."""
        return [text for text, _ in json.loads(self._text("tasks/clinc150.json.gz"))["train"]]


READERS = {
    "snips": lambda m: m.jsonl("tasks/snips.train.jsonl.gz"),
    "atis": lambda m: m.jsonl("tasks/atis.train.jsonl.gz"),
    "trec": lambda m: m.jsonl("tasks/trec.train.jsonl.gz"),
    "polarity": lambda m: m.jsonl("tasks/sentence_polarity.jsonl.gz"),
    "subjectivity": lambda m: m.jsonl("tasks/subjectivity.jsonl.gz"),
    "banking77": lambda m: m.column("tasks/banking77.train.csv.gz", "text"),
    "e2e": lambda m: m.column("tasks/e2e.dev.csv.gz", "mr"),
    "clinc150": Material.clinc,
    "wiki": lambda m: [
        s for s in m._text("text/wiki_sentences.txt.gz").splitlines() if len(s) > 30
    ],
    "c4": lambda m: [row[:LONGEST] for row in m.jsonl("text/c4.jsonl.gz")],
    "wikitext": lambda m: m.passages("text/wikitext2.valid.txt.gz"),
    "inaugural": lambda m: m.passages("text/inaugural.txt.gz"),
    "state_union": lambda m: m.passages("text/state_union.txt.gz"),
    "shakespeare": lambda m: m.passages("text/tinyshakespeare.txt.gz", most=400),
}


def words_of(text: str) -> Sequence[str]:
    """Return a text's words of at least four letters."""
    return re.findall(r"[^\W\d_]{4,}", text)
