"""The paper of an examination: pairs of answers of which it is known which one is better.

All winners are known by construction: a verified right answer against a verified wrong one of the other model, or a
right answer against a copy of it that was damaged or padded. The winner always stands on the left of its duel.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import TypeVar

import numpy as np

from limbeck.validate.judge.corruption import LADDER, Damage, damage, pad
from limbeck.validate.judge.duel import Duel
from limbeck.validate.judge.licence import Part

KNOWN = 80
"""Natural pairs at the most, for each of the two models."""
DAMAGED = 40
"""Pairs for each rung of the ladder and each padding test."""
CLEAR = 0.5
"""Least difference of two verified scores that makes a winner, and the least score of a right answer."""

_Found = TypeVar("_Found")

Wrong = Callable[[str, str], bool]
"""(item, text) to whether the text is a wrong answer to it."""


@dataclass(frozen=True, slots=True)
class Witness:
    """One verified item: the question, both answers, and how they scored."""

    item: str
    cluster: str
    """Of one cluster, one item at the most counts for each rule."""
    question: str
    teacher: str
    student: str
    teacher_score: float
    student_score: float

    @property
    def right(self) -> tuple[str, ...]:
        """Return the right answers."""
        scored = ((self.teacher, self.teacher_score), (self.student, self.student_score))
        return tuple(text for text, score in scored if score >= CLEAR and text.strip())


@dataclass(frozen=True, slots=True)
class Case:
    """One duel of an examination; the left answer is the better one."""

    part: Part
    duel: Duel


def set_paper(
    witnesses: Sequence[Witness], wrong: Wrong, *, seed: int | Sequence[int]
) -> tuple[Case, ...]:
    """Return the cases of an examination, in random order.

    Args:
        witnesses: Verified items of one family; none of them may be used again to correct the judge's votes.
        wrong: Decides whether an answer is wrong beyond doubt; losers and damaged answers must be.
        seed: Draws the items, the damage and the order.
    """
    rng = np.random.default_rng(seed)
    shuffled = [witnesses[i] for i in rng.permutation(len(witnesses))]
    cases = [*_known(shuffled, wrong), *_padded_wrong(shuffled, wrong, rng)]
    originals = [(w, w.right[int(rng.integers(len(w.right)))]) for w in shuffled if w.right]
    made = [_rung(rung, originals, shuffled, wrong, rng) for rung in LADDER]
    for some in (*made, _padded_twins(originals, rng)):
        cases += [case for _, case in _one_a_cluster(some, DAMAGED)]
    return tuple(cases[i] for i in rng.permutation(len(cases)))


def _known(witnesses: Sequence[Witness], wrong: Wrong) -> Iterator[Case]:
    """Yield natural pairs: one model was right, the other wrong."""
    found = [(w, _winner(w, wrong)) for w in witnesses]
    for part in ("teacher right", "student right"):
        mine = [(w, won) for w, won in found if won is not None and won.part == part]
        for w, won in _one_a_cluster(mine, KNOWN):
            yield Case(part, Duel(w.question, won.better, won.worse))


@dataclass(frozen=True, slots=True)
class _Won:
    part: Part
    better: str
    worse: str


def _winner(w: Witness, wrong: Wrong) -> _Won | None:
    """Return which model was right alone, if one was beyond doubt."""
    teacher, student = w.teacher.strip(), w.student.strip()
    lead = w.teacher_score - w.student_score
    if abs(lead) < CLEAR or not teacher or not student or teacher == student:
        return None
    won = _Won("teacher right", w.teacher, w.student)
    if lead < 0:
        won = _Won("student right", w.student, w.teacher)
    return won if wrong(w.item, won.worse) else None


def _padded_wrong(
    witnesses: Sequence[Witness], wrong: Wrong, rng: np.random.Generator
) -> list[Case]:
    """Pad the losers of natural pairs, the teacher's and the student's in turn."""
    found: dict[Part, list[tuple[Witness, Case]]] = {"teacher right": [], "student right": []}
    for w in witnesses:
        won = _winner(w, wrong)
        if won is None:
            continue
        padded = pad(won.worse, rng)
        if len(won.better) < len(padded) and wrong(w.item, padded):
            found[won.part].append((w, Case("padded wrong", Duel(w.question, won.better, padded))))
    turns = zip_longest(*found.values())
    return [case for _, case in _one_a_cluster([f for turn in turns for f in turn if f], DAMAGED)]


def _rung(
    rung: Damage,
    originals: Sequence[tuple[Witness, str]],
    witnesses: Sequence[Witness],
    wrong: Wrong,
    rng: np.random.Generator,
) -> Iterator[tuple[Witness, Case]]:
    for w, text in originals:
        other = witnesses[int(rng.integers(len(witnesses)))]
        elsewhere = other.teacher if text == w.teacher else other.student
        damaged = damage(
            rung,
            text,
            elsewhere=None if other.item == w.item else elsewhere,
            wrong=partial(wrong, w.item),
            rng=rng,
        )
        if damaged is not None:
            yield w, Case(rung, Duel(w.question, text, damaged))


def _padded_twins(
    originals: Sequence[tuple[Witness, str]], rng: np.random.Generator
) -> Iterator[tuple[Witness, Case]]:
    for w, text in originals:
        yield w, Case("padded twin", Duel(w.question, text, pad(text, rng)))


def _one_a_cluster(
    found: Iterable[tuple[Witness, _Found]], most: int
) -> list[tuple[Witness, _Found]]:
    """Keep the first of each cluster: the bounds are exact for independent cases alone."""
    kept: dict[str, tuple[Witness, _Found]] = {}
    for w, what in found:
        if len(kept) == most:
            break
        kept.setdefault(w.cluster, (w, what))
    return list(kept.values())
