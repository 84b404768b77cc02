"""Speed and cost of two models on the same work, interleaved so that a noisy machine disturbs both alike.

A block times two prompts p and q in the order teacher p, student p, student q, teacher q (ABBA); the next block
starts with the student. A machine that slows down steadily then slows both models by the same amount within every
block, and neither is always the one that finds a warm cache.

**Ratios** of speed are medians over blocks, and their interval runs between order statistics: with B independent
blocks, the j-th smallest and the j-th largest hold the median with probability 1 - 2 P(Bin(B, 1/2) < j), whatever the
noise looks like (David and Nagaraja, Order Statistics, 2003, section 7.1). One hiccup moves neither.

**Bills** are ratios of totals, hiccups included, for a bill includes them. With totals X_c over blocks, a log ratio
sum_c s_c log X_c has the variance B / (B - 1) sum_B h_b^2 with h_b = sum_c s_c (x_cb / X_c), centred (the delta
method for ratio estimators: Cochran, Sampling Techniques, 1977, section 6.5). What an *accepted* answer costs is what
an answer costs over the share of answers accepted, since the refused ones were paid for too; the share comes from all
verified items, paired and clustered, and its variance adds.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, stdtrit

from limbeck.errors import ScoringError
from limbeck.progress import Progress, Silent
from limbeck.validate.ledger import Interval, VerifiedOutcome
from limbeck.validate.respond import Asked

Doubles = npt.NDArray[np.float64]

FEWEST_BLOCKS = 6
"""With six blocks the smallest and the largest ratio hold the median with 97%; with five, 94%."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer."""

    prompt: int
    written: int


class Writer(Protocol):
    """A model that writes while somebody watches."""

    @property
    def name(self) -> str: ...

    def write(self, asked: Asked, piece: Callable[[], None]) -> Usage:
        """Write one answer, and call `piece` whenever a part of it has arrived.

        Raises:
            ScoringError: The model cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in billionths of the currency unit: 150 for a token is 0.15 for a million tokens."""

    prompt_token: int = 0
    written_token: int = 0
    second: int = 0
    """For a machine of one's own: 1,000,000 a second is 3.60 an hour."""

    def of(self, usage: Usage, seconds: float) -> float:
        """Return what one answer costs, in billionths."""
        tokens = self.prompt_token * usage.prompt + self.written_token * usage.written
        return tokens + self.second * seconds


@dataclass(frozen=True, slots=True)
class Pace:
    """One model by itself."""

    name: str
    first_s: float
    """Seconds to the first piece of the answer; median over answers."""
    tokens_per_s: float
    """Tokens written over all seconds, reading the prompt included; median over answers."""
    seconds_per_answer: Interval
    seconds_per_accepted: Interval | None
    """None where nothing was verified, or none of it accepted."""
    cost_per_accepted: Interval | None
    """In billionths of the currency unit; None without a price too."""
    tokens: int
    """Written in all timed answers."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Student against teacher."""

    teacher: Pace
    student: Pace
    speed_ratio: Interval
    """Student's tokens per second over the teacher's."""
    first_ratio: Interval
    """Student's seconds to the first piece over the teacher's."""
    seconds_ratio: Interval
    """Student's seconds per answer over the teacher's; shorter answers make it smaller."""
    cost_ratio: Interval | None
    """Student's cost of an accepted answer over the teacher's; None with a reason."""
    cost_reason: str | None
    cost_basis: str
    """What the cost is made of."""
    blocks: int
    confidence: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "speed_ratio": list(self.speed_ratio),
            "first_ratio": list(self.first_ratio),
            "seconds_ratio": list(self.seconds_ratio),
            "cost_ratio": None if self.cost_ratio is None else list(self.cost_ratio),
            "cost_reason": self.cost_reason,
            "cost_basis": self.cost_basis,
            "blocks": self.blocks,
            "confidence": self.confidence,
            "teacher": _pace_dict(self.teacher),
            "student": _pace_dict(self.student),
        }


@dataclass(frozen=True, slots=True)
class _Run:
    """One timed answer."""

    first: float
    seconds: float
    usage: Usage


_Runs = Mapping[str, Sequence[tuple[_Run, _Run]]]
"""By model, both answers of each block."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What one model did, summed over the two answers of each block."""

    name: str
    runs: tuple[_Run, ...]
    seconds_B: Doubles
    first_B: Doubles
    tokens_B: Doubles
    bill_B: Doubles
    """In billionths, or seconds where there is no price."""


@dataclass(frozen=True, slots=True)
class _Log:
    """A logarithm with the variance of its estimate."""

    value: float
    variance: float

    def __add__(self, other: "_Log") -> "_Log":
        return _Log(self.value + other.value, self.variance + other.variance)


def measure_timing(
    prompts: Sequence[Asked],
    teacher: Writer,
    student: Writer,
    *,
    blocks: int = 20,
    outcomes: Sequence[VerifiedOutcome] = (),
    teacher_price: Price | None = None,
    student_price: Price | None = None,
    confidence: float = 0.95,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress | None = None,
) -> Timing:
    """Let both models answer the same prompts in turns and compare speed, waiting and cost.

    One answer each beforehand warms up and is not counted. Block b takes the prompts 2 b and 2 b + 1, beginning again
    after the last.

    Args:
        prompts: At least two.
        teacher: Writes one answer at a time.
        student: The same.
        blocks: Each times two answers of both models; at least 6.
        outcomes: Verified outcomes, from which the shares of accepted answers come; a score counts as that much of
            an accepted answer.
        teacher_price: What the teacher costs; None counts seconds, and then the student must have none either.
        student_price: What the student costs.
        confidence: Of every interval by itself, in (0, 1).
        clock: Returns seconds; only differences are used.
        progress: Hears of every block.

    Raises:
        ScoringError: Too few prompts or blocks, a price for one model alone, or a model that writes nothing.
    """
    if len(prompts) < 2 or blocks < FEWEST_BLOCKS:
        raise ScoringError(
            f"timing needs 2 prompts and {FEWEST_BLOCKS} blocks at least, got {len(prompts)} and {blocks}"
        )
    if (teacher_price is None) != (student_price is None):
        raise ScoringError("timing needs a price for both models or for none")
    progress = progress or Silent()
    runs = _take_turns(prompts, {"teacher": teacher, "student": student}, blocks, clock, progress)
    for who, writer in (("teacher", teacher), ("student", student)):
        if not all(sum(run.usage.written for run in block) for block in runs[who]):
            raise ScoringError(f"the {who} {writer.name} wrote nothing to two prompts in a row")
    work = {
        "teacher": _work(teacher.name, runs["teacher"], teacher_price),
        "student": _work(student.name, runs["student"], student_price),
    }
    priced = teacher_price is not None
    return _compare(
        work["teacher"], work["student"], outcomes, priced=priced, confidence=confidence
    )


def _take_turns(
    prompts: Sequence[Asked],
    writers: Mapping[str, Writer],
    blocks: int,
    clock: Callable[[], float],
    progress: Progress,
) -> _Runs:
    runs: dict[str, list[tuple[_Run, _Run]]] = {who: [] for who in writers}
    progress.begin("time", blocks, "blocks")
    for writer in writers.values():
        _watch(writer, prompts[0], clock)
    for block in range(blocks):
        outer, inner = ("teacher", "student") if block % 2 == 0 else ("student", "teacher")
        p, q = (prompts[(2 * block + i) % len(prompts)] for i in (0, 1))
        before, middle = _watch(writers[outer], p, clock), _watch(writers[inner], p, clock)
        middle_too, after = _watch(writers[inner], q, clock), _watch(writers[outer], q, clock)
        runs[outer].append((before, after))
        runs[inner].append((middle, middle_too))
        progress.advance(1)
    progress.end()
    return runs


def _watch(writer: Writer, asked: Asked, clock: Callable[[], float]) -> _Run:
    arrived: list[float] = []

    def piece() -> None:
        if not arrived:
            arrived.append(clock())

    start = clock()
    usage = writer.write(asked, piece)
    end = clock()
    return _Run((arrived[0] if arrived else end) - start, end - start, usage)


def _work(name: str, blocks: Sequence[tuple[_Run, _Run]], price: Price | None) -> _Work:
    def total(figure: Callable[[_Run], float]) -> Doubles:
        return np.array([sum(map(figure, block)) for block in blocks], dtype=np.float64)

    return _Work(
        name,
        tuple(run for block in blocks for run in block),
        seconds_B=total(lambda r: r.seconds),
        first_B=total(lambda r: r.first),
        tokens_B=total(lambda r: r.usage.written),
        bill_B=total(lambda r: r.seconds if price is None else price.of(r.usage, r.seconds)),
    )


def _compare(
    teacher: _Work,
    student: _Work,
    outcomes: Sequence[VerifiedOutcome],
    *,
    priced: bool,
    confidence: float,
) -> Timing:
    teacher_G, student_G, items_G = _accepted(outcomes)
    blocks = len(teacher.seconds_B)
    cost, reason = None, _why_no_cost(teacher, student, teacher_G, student_G)
    if reason is None:
        bill = _log_ratio(student.bill_B, teacher.bill_B) + _log_ratio(teacher_G, student_G)
        cost = _span(bill, blocks, confidence)
    return Timing(
        teacher=_pace(teacher, teacher_G, items_G, priced=priced, confidence=confidence),
        student=_pace(student, student_G, items_G, priced=priced, confidence=confidence),
        speed_ratio=median_ratio(_rate(student), _rate(teacher), confidence),
        first_ratio=median_ratio(student.first_B, teacher.first_B, confidence),
        seconds_ratio=median_ratio(student.seconds_B, teacher.seconds_B, confidence),
        cost_ratio=cost,
        cost_reason=reason,
        cost_basis="prices" if priced else "seconds on the same machine",
        blocks=blocks,
        confidence=confidence,
    )


def _pace(
    work: _Work, score_G: Doubles, items_G: Doubles, *, priced: bool, confidence: float
) -> Pace:
    blocks = len(work.seconds_B)
    answers_B = np.full(blocks, 2.0)
    seconds = _log_ratio(work.seconds_B, answers_B)
    known = len(score_G) > 1 and score_G.sum() > 0
    accepted = _log_ratio(items_G, score_G) if known else None
    cost = None
    if accepted is not None and priced and work.bill_B.sum() > 0:
        cost = _span(_log_ratio(work.bill_B, answers_B) + accepted, blocks, confidence)
    return Pace(
        name=work.name,
        first_s=median(run.first for run in work.runs),
        tokens_per_s=median(run.usage.written / run.seconds for run in work.runs),
        seconds_per_answer=_span(seconds, blocks, confidence),
        seconds_per_accepted=accepted and _span(seconds + accepted, blocks, confidence),
        cost_per_accepted=cost,
        tokens=sum(run.usage.written for run in work.runs),
    )


def _rate(work: _Work) -> Doubles:
    return work.tokens_B / work.seconds_B


def median_ratio(over_B: Doubles, under_B: Doubles, confidence: float) -> Interval:
    """Return the median of block ratios with its interval between order statistics.

    The interval is the shortest of this kind that holds at the confidence, and the range where none does.
    """
    ratio_B = np.sort(over_B / under_B)
    blocks = len(ratio_B)
    inside = [j for j in range((blocks + 1) // 2) if 1 - 2 * bdtr(j, blocks, 0.5) >= confidence]
    j = max(inside, default=0)
    return float(median(ratio_B)), float(ratio_B[j]), float(ratio_B[blocks - 1 - j])


def _accepted(outcomes: Sequence[VerifiedOutcome]) -> tuple[Doubles, Doubles, Doubles]:
    """Return scores of teacher and student and the number of items, each summed over clusters."""
    sums: dict[str, list[float]] = {}
    for o in outcomes:
        entry = sums.setdefault(o.cluster, [0.0, 0.0, 0.0])
        for place, value in enumerate((o.teacher, o.student, 1.0)):
            entry[place] += value
    teacher_G, student_G, items_G = np.array(list(sums.values())).reshape(-1, 3).T
    return teacher_G, student_G, items_G


def _why_no_cost(
    teacher: _Work, student: _Work, teacher_G: Doubles, student_G: Doubles
) -> str | None:
    if len(teacher_G) < 2:
        return "fewer than two clusters of answers were verified, so little is known of how many are accepted"
    for who, work, score_G in (("teacher", teacher, teacher_G), ("student", student, student_G)):
        if score_G.sum() == 0:
            return f"no answer of the {who} was accepted"
        if work.bill_B.sum() == 0:
            return f"the {who} is given a price of 0"
    return None


def _log_ratio(over_U: Doubles, under_U: Doubles) -> _Log:
    """Return the log of a ratio of totals over two or more independent units U; the formula stands at the head of this module."""
    units = len(over_U)
    part_U = over_U / over_U.sum() - under_U / under_U.sum()  # sums to 0
    scale = units / (units - 1) if units > 1 else math.inf
    spread = float(part_U @ part_U)
    return _Log(math.log(over_U.sum() / under_U.sum()), scale * spread if spread > 0 else 0.0)


def _span(log: _Log, blocks: int, confidence: float) -> Interval:
    half = float(stdtrit(blocks - 1, (1 + confidence) / 2)) * math.sqrt(log.variance)
    return math.exp(log.value), math.exp(log.value - half), math.exp(log.value + half)


def _pace_dict(pace: Pace) -> dict[str, Any]:
    def listed(interval: Interval | None) -> list[float] | None:
        return None if interval is None else list(interval)

    return {
        "name": pace.name,
        "first_s": pace.first_s,
        "tokens_per_s": pace.tokens_per_s,
        "seconds_per_answer": listed(pace.seconds_per_answer),
        "seconds_per_accepted": listed(pace.seconds_per_accepted),
        "cost_per_accepted": listed(pace.cost_per_accepted),
        "tokens": pace.tokens,
    }
