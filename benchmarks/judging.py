"""Do planted judges get the licence they deserve, and is a stub with known delays timed right?

    python benchmarks/judging.py [--quick] [--seeds N]

Questions and answers are made up here, for a judge's faults must be known exactly: sums in words, answered by a
wordy teacher that is right three times of four and a curt student that is right three times of five.
"""

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from planted_judges import Voice, World, more_planted, planted, serve_all, true_at

from limbeck.validate.judge import JudgeSpec, judged_ledger, parse_judge
from limbeck.validate.judge.ballot import Ballot
from limbeck.validate.judge.endpoint import Reply
from limbeck.validate.ledger import Answer, JudgedLedger, Question, VerifiedOutcome

TEACHER_RIGHT, STUDENT_RIGHT = 0.75, 0.6
_THINGS = ("apples", "nails", "stamps", "bricks", "kettles", "maps", "coins", "letters")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Play:
    """A made-up task with the answers of two made-up models."""

    questions: tuple[Question, ...]
    teacher: tuple[Answer, ...]
    student: tuple[Answer, ...]
    verified: tuple[VerifiedOutcome, ...]
    gold: Mapping[str, str]
    """By item."""

    def score(self, item: str, text: str) -> float:
        """Return 1 where the last number of a text is the right one."""
        numbers = _NUMBER.findall(text)
        return float(bool(numbers) and numbers[-1] == self.gold[item])

    def world(self, seed: int, *, favourite: str = "student") -> World:
        """Return what planted judges know of it."""
        item_of = {q.prompt: q.item for q in self.questions}
        answers = self.student if favourite == "student" else self.teacher
        texts = {a.item: a.text for a in answers}
        return World(
            lambda question, text: self.score(item_of[question], text) == 1,
            {q.prompt: texts[q.item] for q in self.questions},
            seed,
        )


def make_play(seed: int, items: int, *, verified: float = 1.0) -> Play:
    """Make a play.

    Args:
        seed: Draws everything.
        items: How many questions.
        verified: Share of them that a program checks.
    """
    rng = np.random.default_rng(seed)
    questions: list[Question] = []
    teacher: list[Answer] = []
    student: list[Answer] = []
    outcomes: list[VerifiedOutcome] = []
    for i in range(items):
        a, b = (int(n) for n in rng.integers(10, 500, 2))
        thing, item = str(rng.choice(_THINGS)), f"sums/{i}"
        good_t, good_s = rng.random() < TEACHER_RIGHT, rng.random() < STUDENT_RIGHT
        said_t, said_s = (a + b + (0 if g else int(rng.integers(1, 90))) for g in (good_t, good_s))
        prompt = f"[{i}] A chest holds {a} {thing}, another one {b} {thing}. How many {thing} is that together?"
        questions.append(Question(item, "sums", prompt, str(a + b)))
        wordy = f"We add what is in both chests, {a} and {b} {thing}, so that together there are {said_t}."
        teacher.append(Answer(item, wordy))
        student.append(Answer(item, f"Together it is {said_s}."))
        if rng.random() < verified:
            outcomes.append(VerifiedOutcome(item, item, float(good_t), float(good_s)))
    gold = {q.item: q.gold or "" for q in questions}
    return Play(tuple(questions), tuple(teacher), tuple(student), tuple(outcomes), gold)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A planted judge without a network in between."""

    name: str
    voice: Voice

    async def ask(self, ballot: Ballot) -> Reply:
        """Answer at once."""
        return Reply(self.voice(ballot))


def hold(play: Play, judges: list[JudgeSpec | Spoken], seed: int) -> JudgedLedger:
    """Return the judged ledger of a play."""
    return judged_ledger(
        play.questions,
        play.teacher,
        play.student,
        play.verified,
        judges,
        seed=seed,
        score=play.score,
    )


def licensed_judges(seed: int, quick: bool) -> list[str]:
    """Return which planted judges get a licence when they are served on loopback; it should be the oracle alone."""
    play = make_play(seed, 240 if quick else 480)
    with serve_all(play.world(seed)) as urls:
        specs = [
            parse_judge(f"{name}={url}", {}, timeout=1.0 if name == "silent" else 30.0)
            for name, url in urls.items()
        ]
        ledger = hold(play, specs, seed)
    return [report.name for report in ledger.judges if report.licensed]
