"""What judges are given: questions with both answers, and the verified ones cut in two halves.

One half of the verified items sets examinations, the other corrects votes. A judge that got its licence on the very
items that later correct it would look better on them than it is. Whole clusters go to one half, and which one is drawn
without a look at the scores.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from limbeck.errors import JudgeError
from limbeck.validate.judge.duel import Duel
from limbeck.validate.judge.paper import CLEAR, Witness
from limbeck.validate.ledger import Answer, Question, VerifiedOutcome

Use = Literal["examine", "correct", "vote"]
Score = Callable[[str, str], float]
"""(item, text) to the verified score of that text, in [0, 1]."""

_Value = TypeVar("_Value")
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One item with both answers."""

    question: Question
    teacher: str
    student: str
    outcome: VerifiedOutcome | None
    use: Use
    """What the item's verified outcome is for; `vote` where there is none."""

    @property
    def duel(self) -> Duel:
        """The student's answer on the left, against the teacher's."""
        return Duel(self.question.prompt, self.student, self.teacher)

    @property
    def same(self) -> bool:
        """Both models wrote the same text: a tie that nobody needs to be asked about."""
        return self.teacher.strip() == self.student.strip()

    @property
    def cluster(self) -> str:
        """The cluster of the item; an item that was not verified is one by itself."""
        return self.question.item if self.outcome is None else self.outcome.cluster

    @property
    def won(self) -> float | None:
        """The student's verified share of the win: 1, 0.5 or 0."""
        if self.outcome is None:
            return None
        lead = self.outcome.student - self.outcome.teacher
        return 0.5 if lead == 0 else float(lead > 0)


def gather(
    questions: Sequence[Question],
    teacher: Iterable[Answer],
    student: Iterable[Answer],
    verified: Iterable[VerifiedOutcome],
    *,
    seed: int,
) -> dict[str, tuple[Entry, ...]]:
    """Return the entries of each family, every verified one with its use.

    Raises:
        JudgeError: An item comes twice, or an answer is missing or belongs to no question.
    """
    known = _by_item("question", ((q.item, q) for q in questions))
    ours = _answers("teacher", teacher, known)
    theirs = _answers("student", student, known)
    outcomes = _by_item("verified outcome", ((o.item, o) for o in verified))
    _no_strangers("verified outcome", outcomes, known)
    families: dict[str, list[Entry]] = {}
    for item, question in known.items():
        entry = Entry(question, ours[item], theirs[item], outcomes.get(item), "vote")
        families.setdefault(question.family, []).append(entry)
    rng = np.random.default_rng(seed)
    return {name: tuple(_halved(entries, rng)) for name, entries in families.items()}


def witnesses(entries: Iterable[Entry]) -> list[Witness]:
    """Return the items that set the examination."""
    return [
        Witness(
            item=e.question.item,
            cluster=e.cluster,
            question=e.question.prompt,
            teacher=e.teacher,
            student=e.student,
            teacher_score=e.outcome.teacher,
            student_score=e.outcome.student,
        )
        for e in entries
        if e.use == "examine" and e.outcome is not None
    ]


def wrong_by(score: Score | None, entries: Iterable[Entry]) -> Callable[[str, str], bool]:
    """Return how it is decided whether a damaged answer is wrong by now.

    It is wrong if the words of the gold answer, where it is known, do not stand in it, and the task's own scorer,
    where there is one, agrees. Either alone errs: a scorer that wants a form refuses what a reader finds right. Where
    there is neither gold nor scorer, damage alone makes an answer wrong.
    """
    gold = {e.question.item: _words(e.question.gold or "") for e in entries}

    def wrong(item: str, text: str) -> bool:
        if gold[item] and _stands_in(gold[item], _words(text)):
            return False
        return score is None or score(item, text) < CLEAR

    return wrong


def _answers(
    who: str, answers: Iterable[Answer], known: Mapping[str, Question]
) -> Mapping[str, str]:
    texts = _by_item(f"{who}'s answer", ((a.item, a.text) for a in answers))
    _no_strangers(f"{who}'s answer", texts, known)
    missing = [item for item in known if item not in texts]
    if missing:
        raise JudgeError(
            f"the {who} has no answer to {len(missing)} of {len(known)} items, the first is {missing[0]}"
        )
    return texts


def _by_item(what: str, pairs: Iterable[tuple[str, _Value]]) -> dict[str, _Value]:
    listed = list(pairs)
    repeated = [item for item, n in Counter(item for item, _ in listed).items() if n > 1]
    if repeated:
        raise JudgeError(f"every item has one {what}, but {repeated[0]} has several")
    return dict(listed)


def _no_strangers(what: str, found: Iterable[str], known: Mapping[str, Question]) -> None:
    for item in found:
        if item not in known:
            raise JudgeError(f"a {what} belongs to {item}, which is not among the questions")


def _halved(entries: Sequence[Entry], rng: np.random.Generator) -> list[Entry]:
    clusters = sorted({e.cluster for e in entries if e.outcome is not None})
    order = rng.permutation(len(clusters))
    examined = {clusters[i] for i in order[: (len(clusters) + 1) // 2]}
    return [
        e
        if e.outcome is None
        else replace(e, use="examine" if e.cluster in examined else "correct")
        for e in entries
    ]


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORDS.findall(text.lower()))


def _stands_in(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))
