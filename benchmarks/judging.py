"""Do planted judges get the licence they deserve, and is a stub with known delays timed right?

    python benchmarks/judging.py [--seed N] [--quick] [--plays N]
    python benchmarks/judging.py --judge NAME=URL      # examine a judge of your own on the same questions

Questions and answers are made up here, for a judge's faults must be known exactly: sums in words, answered by a
wordy teacher that is right three times of four and a curt student that is right three times of five.
"""

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from delayed import Delays, serve_delayed
from planted_judges import Voice, World, limits, more_planted, planted, serve_all, true_at

from limbeck.validate.judge import JudgeSpec, judged_ledger, parse_judge
from limbeck.validate.judge.ballot import Ballot
from limbeck.validate.judge.endpoint import Reply
from limbeck.validate.ledger import Answer, JudgedLedger, Question, VerifiedOutcome
from limbeck.validate.respond import Asked
from limbeck.validate.timing import Timing, measure_timing
from limbeck.validate.writers.served import ServedWriter

TEACHER_RIGHT, STUDENT_RIGHT = 0.75, 0.6
_THINGS = ("apples", "nails", "stamps", "bricks", "kettles", "maps", "coins", "letters")
_RATES = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
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

    def world(self, seed: int) -> World:
        """Return what planted judges know of it; the lineage-lover loves the student."""
        item_of = {q.prompt: q.item for q in self.questions}
        prompts = {q.item: q.prompt for q in self.questions}
        return World(
            lambda question, text: self.score(item_of[question], text) == 1,
            favourite={prompts[a.item]: a.text for a in self.student},
            rival={prompts[a.item]: a.text for a in self.teacher},
            seed=seed,
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


def hold(play: Play, judges: Sequence[JudgeSpec | Spoken], seed: int) -> JudgedLedger:
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


def timing_error(seed: int, quick: bool) -> float:
    """Return the largest relative error of timing two stubs with known delays: ratios of speed and waiting."""
    del seed  # nothing is drawn
    teacher, student = Delays(0.5, 0.06, 8), Delays(0.2, 0.02, 8)
    timing = time_stubs(teacher, student, blocks=6 if quick else 12)
    found = (timing.speed_ratio[0], timing.first_ratio[0], timing.seconds_ratio[0])
    true = (
        teacher.seconds / student.seconds,
        student.first_s / teacher.first_s,
        student.seconds / teacher.seconds,
    )
    return max(abs(f / t - 1) for f, t in zip(found, true, strict=True))


def time_stubs(teacher: Delays, student: Delays, *, blocks: int) -> Timing:
    """Time two stubs on loopback."""
    prompts = [Asked(f"stub/{i}", f"Prompt {i}", "chat") for i in range(4)]
    with (
        serve_delayed(teacher) as teacher_url,
        serve_delayed(student) as student_url,
        ServedWriter("slow", teacher_url, max_new_tokens=teacher.tokens) as slow,
        ServedWriter("fast", student_url, max_new_tokens=student.tokens) as fast,
    ):
        return measure_timing(prompts, slow, fast, blocks=blocks)


def licence_rates(plays: int, items: int = 480) -> dict[str, float]:
    """Return how often each planted judge gets a licence over many plays, without a network in between.

    `right N%` is right on a pair, in both orders, with that chance, on every part of the examination alike.
    """
    licensed: Counter[str] = Counter()
    names: list[str] = []
    for seed in range(plays):
        play = make_play(seed, items)
        world = play.world(seed)
        voices = planted(world) | more_planted(world) | limits(world)
        voices |= {f"right {rate:.0%}": true_at(world, rate) for rate in _RATES}
        names = list(voices)
        ledger = hold(play, [Spoken(name, voice) for name, voice in voices.items()], seed)
        licensed.update(report.name for report in ledger.judges if report.licensed)
    return {name: licensed[name] / plays for name in names}


def main() -> None:
    """Print everything, as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plays", type=int, default=200)
    parser.add_argument("--judge", action="append", metavar="NAME=URL", default=[])
    options = parser.parse_args()
    if options.judge:
        specs = [parse_judge(text, os.environ) for text in options.judge]
        ledger = hold(make_play(options.seed, 480), specs, options.seed)
        print(json.dumps(asdict(ledger), indent=2))
        return
    rates = licence_rates(20 if options.quick else options.plays)
    for name, rate in rates.items():
        print(f"{name:<18} licensed in {rate:.1%} of the plays")
    result = {
        "licensed_judges": licensed_judges(options.seed, options.quick),
        "licence_rates": rates,
        "timing_error": timing_error(options.seed, options.quick),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
