"""Where a teacher's tokens lie beside a student's, for the same text, counted in bytes.

A *passage* is text that both models write: the content of an answer in a chat, or the whole of a plain text. Each
side has its own tokens around it (headers, an end of turn, a token that begins every text), which are not
aligned; only the tokens that end a turn stand for each other.

Every token of the student in a passage is a *row*: the student, having read what stands before it, is asked for it.
The teacher's token that holds the row's first byte says what the teacher thought would come:

    WHOLE   both sides begin a token there: the spans coincide
    INSIDE  the teacher's token began earlier; what it says is taken given the bytes in between
    BEGUN   the student's token begins or ends outside the passage, with white space of its template in it
    END     the token that ends the turn
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.distill.spelling import Spelling
from limbeck.distill.targets import Bools, Document, Ids, Ints

WHOLE, INSIDE, BEGUN, END = range(4)
KINDS = ("whole", "inside", "begun", "end")


@dataclass(frozen=True, slots=True)
class Spans:
    """One side's tokens over a passage."""

    first: int
    """Number in the document of the first token that holds a byte of the passage."""
    edges_M1: Ints
    """Ascending byte offsets around its M tokens, counted from the passage's start; the outer ones may lie beyond it."""
    end: int | None
    """Number of the token that ends the turn; None where none does."""

    @property
    def inner(self) -> Ints:
        """Return the offsets at which tokens begin."""
        return self.edges_M1[:-1]

    @property
    def stop(self) -> int:
        """Number of the first token past the passage."""
        return self.first + len(self.edges_M1) - 1


@dataclass(frozen=True, slots=True)
class Passage:
    """Text that both sides hold."""

    content: bytes
    student: Spans
    teacher: Spans

    def as_json(self) -> dict[str, Any]:
        """Return what `read_passage` needs beside the tokens."""
        sides = {"student": self.student, "teacher": self.teacher}
        return {"bytes": len(self.content)} | {
            name: [side.first, int(side.edges_M1[0]), side.end] for name, side in sides.items()
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """One document as both sides read it."""

    student: Document
    """What the student reads; its loss positions are the rows, in order."""
    teacher_T: Ids
    passages: tuple[Passage, ...]

    @property
    def content_bytes(self) -> int:
        """Bytes of the passages."""
        return sum(len(p.content) for p in self.passages)

    def rows(self) -> "Rows":
        """Return the rows of all passages."""
        parts = [rows_of(p) for p in self.passages]
        return Rows(*(np.concatenate(column) for column in zip(*map(_columns, parts), strict=True)))

    def row_contents(self) -> list[bytes]:
        """Return the bytes of its passage that each row's token holds."""
        contents: list[bytes] = []
        for passage in self.passages:
            rows, edges = rows_of(passage), np.maximum(passage.student.edges_M1, 0)
            for token, kind, size in zip(rows.student_R, rows.kind_R, rows.size_R, strict=True):
                start = 0 if kind == END else int(edges[token - passage.student.first])
                contents.append(passage.content[start : start + int(size)])
        return contents


@dataclass(frozen=True, slots=True)
class Rows:
    """R tokens of a student, each with the teacher's token beside it."""

    student_R: Ints
    """Number of the student's token in its document, at least 1."""
    teacher_R: Ints
    """Number of the teacher's token that holds the first byte, at least 1."""
    kind_R: Ints
    """WHOLE, INSIDE, BEGUN or END."""
    skip_R: Ints
    """Bytes of the teacher's token that lie before the row's first byte."""
    size_R: Ints
    """Bytes of the passage that the student's token holds; 0 at the end of a turn."""

    def __len__(self) -> int:
        """Return R."""
        return len(self.student_R)


def rows_of(passage: Passage) -> Rows:
    """Pair each of the student's tokens in a passage with the teacher's token that holds its first byte.

    A row without anything read before it, on either side, is left out: nothing predicts the first token of
    a document.
    """
    student, teacher, length = passage.student, passage.teacher, len(passage.content)
    starts, stops = student.edges_M1[:-1], student.edges_M1[1:]
    begins = np.clip(starts, 0, length)
    holder = np.searchsorted(teacher.inner, begins, side="right") - 1
    skip = begins - teacher.inner[holder]
    kind = np.where(skip == 0, WHOLE, INSIDE)
    kind[(starts < 0) | (stops > length)] = BEGUN
    rows = Rows(
        student_R=student.first + np.arange(len(starts)),
        teacher_R=teacher.first + holder,
        kind_R=kind.astype(np.int64),
        skip_R=skip,
        size_R=np.minimum(stops, length) - begins,
    )
    if student.end is not None and teacher.end is not None:
        rows = _append(rows, student.end, teacher.end)
    return select(rows, (rows.student_R > 0) & (rows.teacher_R > 0))


def common_edges(student: Spans, teacher: Spans, length: int) -> Ints:
    """Return the offsets in [0, length] at which tokens of both sides begin or end."""
    both = np.intersect1d(student.edges_M1, teacher.edges_M1)
    return both[(both >= 0) & (both <= length)]


def spans_of(
    spelling: Spelling, tokens_T: Ids, content: bytes, start: int, stop: int
) -> Spans | None:
    """Find a passage within the tokens `start` to `stop` of a document.

    Args:
        spelling: What the tokens spell.
        tokens_T: The document.
        content: The passage.
        start: Where to look from; the passage may follow white space.
        stop: Where to stop looking.

    Returns:
        None where the tokens do not spell the passage: a tokenizer may change text, or not know a character.
    """
    written = b"".join(spelling.spell(tokens_T[start:stop]))
    offset = written.find(content)
    if offset < 0:
        return None
    edges = spelling.edges(tokens_T[start:stop]) - offset
    first = int(np.searchsorted(edges, 0, side="right")) - 1
    last = int(np.searchsorted(edges, len(content), side="left"))
    if not spelling.is_text(tokens_T[start + first : start + last]):
        return None
    return Spans(start + first, edges[first : last + 1], None)


def read_passage(
    value: Mapping[str, Any],
    student_T: Ids,
    teacher_T: Ids,
    spellings: tuple[Spelling, Spelling],
) -> Passage:
    """Rebuild a passage from `Passage.as_json` and both sides' tokens.

    Args:
        value: What `as_json` gave.
        student_T: The student's document.
        teacher_T: The teacher's.
        spellings: The student's, then the teacher's.
    """
    length = value["bytes"]
    ours, theirs = spellings
    student = _rebuilt(ours, student_T, length, *value["student"])
    teacher = _rebuilt(theirs, teacher_T, length, *value["teacher"])
    written = b"".join(ours.spell(student_T[student.first : student.stop]))
    skip = -int(student.edges_M1[0])
    return Passage(written[skip : skip + length], student, teacher)


def _rebuilt(
    spelling: Spelling, tokens_T: Ids, length: int, first: int, edge: int, end: int | None
) -> Spans:
    stop = len(tokens_T) if end is None else end
    edges = spelling.edges(tokens_T[first:stop]) + edge
    last = int(np.searchsorted(edges, length, side="left"))
    return Spans(first, edges[: last + 1], end)


def loss_of(rows: Rows, tokens: int) -> Bools:
    """Return the student's loss positions [T]: the position before each row's token."""
    loss_T = np.zeros(tokens, dtype=np.bool_)
    loss_T[rows.student_R - 1] = True
    return loss_T


def _columns(rows: Rows) -> Iterator[Ints]:
    yield from (rows.student_R, rows.teacher_R, rows.kind_R, rows.skip_R, rows.size_R)


def _append(rows: Rows, student_end: int, teacher_end: int) -> Rows:
    new = (student_end, teacher_end, END, 0, 0)
    return Rows(*(np.append(c, n) for c, n in zip(_columns(rows), new, strict=True)))


def select(rows: Rows, kept: Bools | Ints | slice) -> Rows:
    """Return some of the rows."""
    return Rows(*(column[kept] for column in _columns(rows)))
