"""A run whose teacher reads more than its student: prompt distillation, over the run's folder.

`corpus/documents.jsonl` holds what the student reads, and after the same answers what the teacher reads; what all of
the teacher's readings begin with lies once in `corpus/beginning.json`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.artefact import read_json, write_json
from limbeck.distill.beginning import Beginning, can_share
from limbeck.distill.corpus import Chat, Corpus, Counts, Prompt
from limbeck.distill.prefix import Asked, Read, ask_twice, read_twice, shared_length
from limbeck.distill.targets import Document, Ids
from limbeck.model import LocalModel

_WORTH = 16
"""Tokens of a shared beginning below which lending it costs more than reading it again."""


def write_beginning(folder: Path, tokens: Sequence[Ids], most: int) -> int:
    """Write what all token sequences begin with, at most `most` tokens, and return how many they are."""
    shared = shared_length(tokens, most)
    shared = shared if shared >= _WORTH else 0
    write_json(folder / "corpus/beginning.json", {"tokens": tokens[0][:shared].tolist()})
    return shared


def read_beginning(folder: Path) -> Ids:
    """Return what all of the teacher's readings begin with."""
    return np.asarray(read_json(folder / "corpus/beginning.json")["tokens"], dtype=np.int32)


def lend(teacher: LocalModel, tokens_P: Ids) -> tuple[Beginning | None, Ids]:
    """Return the teacher's beginning, read once, and the tokens that each reading must then still hold.

    A model whose layers cannot share reads them every time.
    """
    nothing = tokens_P[:0]
    if not len(tokens_P):
        return None, nothing
    if not can_share(teacher.model):
        return None, tokens_P
    return Beginning(teacher.model, tokens_P), nothing


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the corpus' documents or prompts as JSON values."""
    with (folder / "corpus/documents.jsonl").open(encoding="utf-8") as file:
        yield from map(json.loads, file)


@dataclass(frozen=True)
class Told:
    """What a teacher is told, over one run's folder."""

    folder: Path
    """The run's."""
    teacher: LocalModel

    def read(
        self, corpus: Corpus, prefix: Chat, *, max_length: int
    ) -> tuple[list[dict[str, Any]], Counts]:
        """Return the lines of answered chats, and their counts."""
        reads, counts = read_twice(corpus, self.teacher.tokenizer, prefix, max_length=max_length)
        most = min(int(np.flatnonzero(r.teacher.loss_T)[0]) for r in reads)
        shared = write_beginning(self.folder, [r.teacher.tokens_T for r in reads], most)
        return [_read_line(read, shared) for read in reads], counts

    def ask(
        self, corpus: Corpus, prefix: Chat, *, max_length: int
    ) -> tuple[list[dict[str, Any]], Counts]:
        """Return the lines of prompts, and their counts."""
        asked, counts = ask_twice(corpus, self.teacher.tokenizer, prefix, max_length=max_length)
        tokens = [a.teacher_T for a in asked]
        shared = write_beginning(self.folder, tokens, min(map(len, tokens)) - 1)
        return [_asked_line(a, shared) for a in asked], counts

    @cached_property
    def _lent(self) -> tuple[Beginning | None, Ids]:
        return lend(self.teacher, read_beginning(self.folder))

    @property
    def beginning(self) -> Beginning | None:
        """What the teacher has read before each reading; None where it reads everything every time."""
        return self._lent[0]

    def reads(self) -> list[Read]:
        """Return what each side reads of the answered chats, after the beginning, in the order of capture."""
        found = [_read_of(line, self._lent[1]) for line in lines(self.folder)]
        return sorted(found, key=lambda r: (-len(r.student.tokens_T), r.student.key))

    def asked(self) -> list[Asked]:
        """Return what each side reads of the prompts, after the beginning."""
        return [_asked_of(line, self._lent[1]) for line in lines(self.folder)]

    def whole(self, documents: Sequence[Document], *, written: bool) -> list[Document]:
        """Return what the teacher reads instead of some documents, from the beginning on.

        Args:
            documents: As the store holds them.
            written: Whether the teacher wrote their answers, so that the corpus holds their prompts alone.
        """
        shared_T = read_beginning(self.folder)
        if not written:
            reads = [_read_of(line, shared_T) for line in lines(self.folder)]
            by_tokens = {r.student.tokens_T.tobytes(): r.teacher for r in reads}
            return [by_tokens[d.tokens_T.tobytes()] for d in documents]
        asked = [_asked_of(line, shared_T) for line in lines(self.folder)]
        prompts = {a.student.tokens_T.tobytes(): a.teacher_T for a in asked}
        return [_retold(document, prompts) for document in documents]


def _read_line(read: Read, shared: int) -> dict[str, Any]:
    student, teacher = read.student, read.teacher
    return {
        "key": student.key,
        "heldout": student.heldout,
        "tokens": student.tokens_T.tolist(),
        "loss": np.flatnonzero(student.loss_T).tolist(),
        "teacher": teacher.tokens_T[shared:].tolist(),
        "teacher_loss": np.flatnonzero(teacher.loss_T[shared:]).tolist(),
    }


def _asked_line(asked: Asked, shared: int) -> dict[str, Any]:
    prompt = asked.student
    return {
        "key": prompt.key,
        "heldout": prompt.heldout,
        "tokens": prompt.tokens_T.tolist(),
        "teacher": asked.teacher_T[shared:].tolist(),
    }


def _read_of(line: Mapping[str, Any], before_T: Ids) -> Read:
    told_T = np.concatenate([before_T, np.asarray(line["teacher"], dtype=np.int32)])
    told_loss = [place + len(before_T) for place in line["teacher_loss"]]
    return Read(
        _document(line, np.asarray(line["tokens"], dtype=np.int32), line["loss"]),
        _document(line, told_T, told_loss),
    )


def _document(line: Mapping[str, Any], tokens_T: Ids, loss: Sequence[int]) -> Document:
    loss_T = np.zeros(len(tokens_T), dtype=np.bool_)
    loss_T[loss] = True
    return Document(tokens_T, loss_T, line["heldout"], line["key"])


def _asked_of(line: Mapping[str, Any], before_T: Ids) -> Asked:
    prompt = Prompt(np.asarray(line["tokens"], dtype=np.int32), line["heldout"], line["key"])
    told_T = np.concatenate([before_T, np.asarray(line["teacher"], dtype=np.int32)])
    return Asked(prompt, told_T)


def _retold(document: Document, prompts: Mapping[bytes, Ids]) -> Document:
    """Put an answer after the prompt that the teacher read before it."""
    start = int(np.flatnonzero(document.loss_T)[0]) + 1
    told_T = prompts[document.tokens_T[:start].tobytes()]
    tokens_T = np.concatenate([told_T, document.tokens_T[start:]])
    loss_T = np.zeros(len(tokens_T), dtype=np.bool_)
    loss_T[len(told_T) - 1 :] = document.loss_T[start - 1 :]
    return Document(tokens_T, loss_T, document.heldout, document.key)
