"""Names for the next bytes of a text that two vocabularies share.

Two models with different tokenizers predict different things: which *token* comes next. What both say
something of is which *bytes* come next, and a token says that they begin with its own. Labels are the byte
strings that are a token in both vocabularies. A token of either one counts for the longest label that its
bytes begin with: `ing` counts for `in` where only one side has `ing`. Probabilities summed over tokens of a
label are distributions of one and the same variable, as far as a text is cut the same way up to the label's end;
docs/across-tokenizers.md says where it is not.

A label is written as the smallest of the student's ids with its bytes. Four further ids follow the student's own:

- OTHER: a token without any label, such as a special one.
- REALISED: the next bytes begin with the student's realised token, which the teacher does not have; taken out
  of that token's label.
- BEGUN: the same, out of all next bytes together.
- REST: what a target leaves unsaid.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.distill.spelling import Spelling
from limbeck.distill.targets import Bools, Ints
from limbeck.errors import RunError

SPECIAL_LABELS = 4
_MOST_KNOWN = 4096
_ARRAYS = ("label_V", "is_text_V", "order_V", "first_V", "stop_V")


@dataclass(frozen=True)
class StudentLabels:
    """For each of the student's V ids the label that it counts for, and the ids that extend its bytes."""

    label_V: Ints
    """Label of each id."""
    is_text_V: Bools
    """Whether an id spells text."""
    order_V: Ints
    """Ids in the order of their bytes; those that spell nothing come last."""
    first_V: Ints
    """Where in `order_V` the ids begin whose bytes begin with this id's."""
    stop_V: Ints
    """Where they end; an id that spells nothing has only itself."""

    @property
    def other(self) -> int:
        """Id of OTHER."""
        return len(self.label_V)

    @property
    def realised(self) -> int:
        """Id of REALISED."""
        return len(self.label_V) + 1

    @property
    def begun(self) -> int:
        """Id of BEGUN."""
        return len(self.label_V) + 2

    @property
    def rest(self) -> int:
        """Id of REST."""
        return len(self.label_V) + 3

    @property
    def size(self) -> int:
        """Ids altogether: the vocabulary of a store of labels."""
        return len(self.label_V) + SPECIAL_LABELS

    @cached_property
    def rank_V(self) -> Ints:
        """Place of each id in `order_V`."""
        rank_V = np.empty_like(self.order_V)
        rank_V[self.order_V] = np.arange(len(self.order_V))
        return rank_V

    @cached_property
    def members(self) -> tuple[Ints, Ints]:
        """Ids sorted by label, and `size + 1` offsets: the ids of label w lie between offsets w and w + 1."""
        counts = np.bincount(self.label_V, minlength=self.size)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return np.argsort(self.label_V, kind="stable"), offsets

    def is_split(self, token: Any) -> Any:
        """Tell of ids whether they are no label themselves, so that REALISED splits the label they count for."""
        label = self.label_V[token]
        first_V = np.append(self.first_V, -1)  # OTHER begins nowhere
        return self.is_text_V[token].astype(np.bool_) & (first_V[label] != self.first_V[token])

    def save(self, path: Path) -> None:
        """Write the arrays, so that training needs no teacher."""
        from safetensors.numpy import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: getattr(self, name) for name in _ARRAYS}, path)


def read_labels(path: Path) -> StudentLabels:
    """Read what `StudentLabels.save` wrote.

    Raises:
        RunError: The file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        return StudentLabels(**{name: arrays[name] for name in _ARRAYS})
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(f"{path} is missing or damaged; run the corpus step again") from error


@dataclass(frozen=True)
class Labels:
    """Both sides' labels; what a teacher's distribution is summed over."""

    student: StudentLabels
    teacher_V: Ints
    """Label of each of the teacher's ids."""
    teacher: Spelling
    by_bytes: dict[bytes, int]
    """Every label's bytes."""
    longest: int
    """Bytes of the longest label."""
    _ordered: tuple[list[bytes], Ints] = field(repr=False)
    """The teacher's text tokens by their bytes: the bytes, and the ids."""
    _known: dict[tuple[bytes, int, bytes], tuple[Ints, Ints]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Answers of `teacher_tokens`, which ask for the same beginnings again and again."""

    def of(self, content: bytes) -> int:
        """Return the longest label that some bytes begin with, or OTHER."""
        return _longest(content, self.by_bytes, self.longest, self.student.other)

    def teacher_tokens(
        self, beginning: bytes, *, skip: int = 0, said: bytes = b""
    ) -> tuple[Ints, Ints]:
        """Return the teacher's tokens that begin with some bytes, and the label of what each says.

        Args:
            beginning: Bytes that a token begins with.
            skip: Bytes of a token that were said before; tokens without any after them are left out.
            said: Bytes that come before the token's in what the label is of.
        """
        key = (beginning, skip, said)
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = self._find(beginning, skip, said)
        return self._known[key]

    def _find(self, beginning: bytes, skip: int, said: bytes) -> tuple[Ints, Ints]:
        pieces, ids = self._ordered
        places = range(*_range(pieces, beginning))
        found = [place for place in places if len(pieces[place]) > skip]
        labels = [self.of(said + pieces[place][skip:]) for place in found]
        return ids[found], np.array(labels, dtype=np.int64)


def share_labels(
    teacher: Spelling,
    student: Spelling,
    *,
    teacher_ends: Iterable[int],
    student_ends: Iterable[int],
) -> Labels:
    """Find the labels that two vocabularies share.

    Args:
        teacher: What the teacher's ids spell.
        student: What the student's ids spell.
        teacher_ends: The teacher's ids that end a turn; together they are one label with the student's.
        student_ends: The student's.
    """
    theirs = {piece for piece in teacher.pieces if piece}
    by_bytes: dict[bytes, int] = {}
    for number, piece in enumerate(student.pieces):
        if piece and piece in theirs:
            by_bytes.setdefault(piece, number)
    longest = max(map(len, by_bytes), default=0)
    other = len(student)
    student_V = _label_each(student, by_bytes, longest, other)
    teacher_V = _label_each(teacher, by_bytes, longest, other)
    ends = sorted(set(student_ends))
    student_V[ends] = ends[0] if ends else other
    teacher_V[sorted(set(teacher_ends))] = ends[0] if ends else other
    is_text_V = np.array([bool(piece) for piece in student.pieces], dtype=np.bool_)
    return Labels(
        student=StudentLabels(student_V, is_text_V, *_extensions(student)),
        teacher_V=teacher_V,
        teacher=teacher,
        by_bytes=by_bytes,
        longest=longest,
        _ordered=_by_bytes(teacher),
    )


def _label_each(spelling: Spelling, by_bytes: dict[bytes, int], longest: int, other: int) -> Ints:
    return np.array(
        [other if not p else _longest(p, by_bytes, longest, other) for p in spelling.pieces],
        dtype=np.int64,
    )


def _longest(content: bytes, by_bytes: dict[bytes, int], longest: int, other: int) -> int:
    for size in range(min(len(content), longest), 0, -1):
        found = by_bytes.get(content[:size])
        if found is not None:
            return found
    return other


def _by_bytes(spelling: Spelling) -> tuple[list[bytes], Ints]:
    pairs = sorted((piece, number) for number, piece in enumerate(spelling.pieces) if piece)
    return [piece for piece, _ in pairs], np.array([number for _, number in pairs], dtype=np.int64)


def _range(pieces: Sequence[bytes], beginning: bytes) -> tuple[int, int]:
    """Return where sorted byte strings that begin with `beginning` start and stop."""
    start = bisect_left(pieces, beginning)
    after = beginning.rstrip(b"\xff")
    if not after:
        return start, len(pieces)
    return start, bisect_left(pieces, after[:-1] + bytes([after[-1] + 1]), lo=start)


def _extensions(spelling: Spelling) -> tuple[Ints, Ints, Ints]:
    pieces, ids = _by_bytes(spelling)
    silent = [number for number, piece in enumerate(spelling.pieces) if not piece]
    order_V = np.concatenate([ids, np.array(silent, dtype=np.int64)])
    first_V, stop_V = np.empty(len(spelling), np.int64), np.empty(len(spelling), np.int64)
    for piece, number in zip(pieces, ids.tolist(), strict=True):
        first_V[number], stop_V[number] = _range(pieces, piece)
    places = np.arange(len(pieces), len(order_V))
    first_V[silent], stop_V[silent] = places, places + 1
    return order_V, first_V, stop_V
