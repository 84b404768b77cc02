"""What tests of judging share: judges in this process, and verified answers whose gold is known."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from limbeck.validate.judge.ballot import Ballot
from limbeck.validate.judge.endpoint import Reply
from limbeck.validate.ledger import Answer, Question, VerifiedOutcome

Voice = Callable[[Ballot], str]
T = TypeVar("T")


@dataclass
class Spoken:
    """A judge in this process that counts what it is asked."""

    name: str
    voice: Voice
    asked: int = 0

    async def ask(self, ballot: Ballot) -> Reply:
        """Answer at once."""
        self.asked += 1
        return Reply(self.voice(ballot))


@dataclass(frozen=True)
class Sums:
    """Sums answered by two models."""

    questions: Sequence[Question]
    teacher: Sequence[Answer]
    student: Sequence[Answer]
    verified: Sequence[VerifiedOutcome]

    def right(self, question: str, text: str) -> bool:
        """Say whether the gold number stands in a text."""
        gold = {q.prompt: q.gold for q in self.questions}[question]
        return gold in text.replace(".", " ").split()

    def oracle(self, ballot: Ballot) -> str:
        """Judge by the gold answer."""
        a = self.right(ballot.question, ballot.answer_a)
        b = self.right(ballot.question, ballot.answer_b)
        return "[[C]]" if a == b else "[[A]]" if a else "[[B]]"


def _sums(items: int = 400, *, verified: int | None = None, family: str = "sums") -> Sums:
    """Make sums: of ten the teacher has 8 right and the student 6, 5 of them both."""
    questions, teacher, student, outcomes = [], [], [], []
    for i in range(items):
        good_t, good_s = i % 10 < 8, 3 <= i % 10 < 8 or i % 10 == 9
        a, b = 10 + i, 3 * i + 11
        item = f"{family}/{i}"
        questions.append(Question(item, family, f"[{family}] How much is {a} + {b}?", f"{a + b}"))
        teacher.append(Answer(item, f"Adding {a} and {b} gives {a + b + 7 * (not good_t)} in all."))
        student.append(Answer(item, f"It is {a + b + 5 * (not good_s)}."))
        if verified is None or i < verified:
            outcomes.append(VerifiedOutcome(item, item, float(good_t), float(good_s)))
    return Sums(questions, teacher, student, outcomes)


@pytest.fixture(scope="session")
def make_sums() -> Callable[..., Sums]:
    return _sums


@pytest.fixture(scope="session")
def sums() -> Sums:
    return _sums()


@pytest.fixture(scope="session")
def spoken() -> Callable[[str, Voice], Spoken]:
    return Spoken


@pytest.fixture(scope="session")
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    return asyncio.run
