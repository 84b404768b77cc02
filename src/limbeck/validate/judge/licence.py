"""What a judge must show before its first vote counts, and the test of whether it has.

A judge gets its licence when every rule holds, and a rule holds when the *exact one-sided bound* of its rate
(Clopper and Pearson, Biometrika 26, 1934) lies on the right side of a limit that was fixed beforehand: never the
rate itself, which a handful of lucky pairs can push anywhere. Since all rules must hold at once (an
intersection-union test: Berger, Technometrics 24, 1982), a judge whose true rate misses any one limit gets a
licence with a chance of at most `ALPHA`, whatever it does elsewhere, and no correction for the number of rules is
needed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from limbeck.stats.proportion import clopper_pearson
from limbeck.validate.judge.corruption import LADDER

ALPHA = 0.05
"""Chance that a judge who misses a limit gets a licence nevertheless, for each family of tasks."""
LARGEST_GAP = 0.3
"""By how much the share of right verdicts may differ between pairs that the teacher and the student should win."""
FEWEST_RUNGS = 2
"""Rungs of the corruption ladder that a family's answers must allow, off-topic among them."""

Part = Literal[
    "parse",
    "swap",
    "teacher right",
    "student right",
    "truncate",
    "shuffle",
    "negate",
    "off-topic",
    "padded twin",
    "padded wrong",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit, and on which side of it the true rate must lie."""

    limit: float
    side: Literal["above", "below"]
    says: str
    """What was counted, as a sentence with a place for the number."""

    def smallest(self) -> int:
        """Return with how many cases a judge without a single fault passes."""
        fault_free = self.limit if self.side == "above" else 1 - self.limit
        return math.floor(math.log(ALPHA) / math.log(fault_free)) + 1

    def bound(self, events: int, n: int) -> float:
        """Return the exact one-sided bound at `ALPHA` that is held against the limit."""
        exact = clopper_pearson(events, n, 1 - 2 * ALPHA)
        return exact.low if self.side == "above" else exact.high

    def holds(self, events: int, n: int) -> bool:
        """Return whether the bound lies on the right side."""
        if n < 1:
            return False
        bound = self.bound(events, n)
        return bound > self.limit if self.side == "above" else bound < self.limit


RULES: Mapping[Part, Rule] = {
    "parse": Rule(0.9, "above", "{} replies held one verdict"),
    "swap": Rule(0.65, "above", "{} pairs with a known winner got one verdict in both orders"),
    "teacher right": Rule(
        0.6, "above", "{} pairs were won by the teacher's right answer over the student's wrong one"
    ),
    "student right": Rule(
        0.6, "above", "{} pairs were won by the student's right answer over the teacher's wrong one"
    ),
    "truncate": Rule(0.7, "above", "{} pairs were won by a right answer over its first part"),
    "shuffle": Rule(
        0.7, "above", "{} pairs were won by a right answer over the same in another order"
    ),
    "negate": Rule(0.7, "above", "{} pairs were won by a right answer over its contrary"),
    "off-topic": Rule(
        0.7, "above", "{} pairs were won by a right answer over one to another question"
    ),
    "padded twin": Rule(0.3, "below", "{} pairs were won by padding over the same without padding"),
    "padded wrong": Rule(
        0.6, "above", "{} pairs were won by a right answer over a wrong one with padding"
    ),
}
"""Fixed beforehand; docs/judges.md says why these."""


@dataclass(frozen=True, slots=True)
class Count:
    """How one part of the examination went, or stands."""

    events: int
    asked: int
    planned: int

    def __add__(self, other: "Count") -> "Count":
        return Count(
            self.events + other.events, self.asked + other.asked, self.planned + other.planned
        )


def applies(part: Part, planned: int) -> bool:
    """Say whether a rule is held against a judge; a rung that a family's answers do not allow is not."""
    rung = part in LADDER and part != "off-topic"
    return not rung or planned >= RULES[part].smallest()


def cannot_be_set(planned: Mapping[Part, int]) -> list[str]:
    """Return why a family has too little verified material for any judge to pass; empty where it has enough."""
    reasons = [
        f"the examination cannot be set: at best {rule.says.format(planned[part])}, {rule.smallest()} are needed"
        for part, rule in RULES.items()
        if applies(part, planned[part]) and planned[part] < rule.smallest()
    ]
    rungs = [part for part in LADDER if planned[part] >= RULES[part].smallest()]
    if len(rungs) < FEWEST_RUNGS:
        reasons.append(
            f"the examination cannot be set: the answers allow {len(rungs)} kinds of damage, {FEWEST_RUNGS} are needed"
        )
    return [*reasons, *_gap_cannot_be_set(planned)]


def hopeless(counts: Mapping[Part, Count]) -> bool:
    """Say whether a rule will fail however well the judge does from here.

    Stopping then changes no result, for the bound only falls with every fault: it saves calls at no price.
    """
    return any(not rule.holds(*_at_best(rule, counts[part])) for part, rule in _held(counts))


def faults(counts: Mapping[Part, Count]) -> list[str]:
    """Return one sentence for each rule that a judge has failed; empty means a licence.

    A part that was stopped half-way fails where it had become hopeless, and is silent where it had not.
    """
    whole = all(count.asked == count.planned for count in counts.values())
    failed: list[str] = []
    for part, rule in _held(counts):
        count = counts[part]
        reached = (count.events, count.asked) if whole else _at_best(rule, count)
        if not rule.holds(*reached):
            failed.append(_fault(rule, count))
    gap = largest_gap(counts)
    if whole and gap is not None and gap >= LARGEST_GAP:
        failed.append(_gap_fault(counts, gap))
    return failed


def largest_gap(counts: Mapping[Part, Count]) -> float | None:
    """Return the upper bound of how differently a judge treats the two models, or None where it was not asked.

    The larger of U_t - L_s and U_s - L_t, with exact bounds at `ALPHA` / 2 each, so that all of them hold together
    with at least 1 - `ALPHA` (Bonferroni).
    """
    teacher, student = counts["teacher right"], counts["student right"]
    if not (teacher.asked and student.asked):
        return None
    ours = clopper_pearson(teacher.events, teacher.asked, 1 - ALPHA)
    theirs = clopper_pearson(student.events, student.asked, 1 - ALPHA)
    return max(ours.high - theirs.low, theirs.high - ours.low)


def _held(counts: Mapping[Part, Count]) -> list[tuple[Part, Rule]]:
    return [(part, rule) for part, rule in RULES.items() if applies(part, counts[part].planned)]


def _at_best(rule: Rule, count: Count) -> tuple[int, int]:
    """Return events and cases if everything that is left goes well."""
    left = count.planned - count.asked
    return count.events + (left if rule.side == "above" else 0), count.planned


def _fault(rule: Rule, count: Count) -> str:
    found = rule.says.format(f"{count.events} of {count.asked}")
    need = f"{rule.side} {rule.limit:.0%}"
    if count.asked < count.planned:
        return f"{found}; the {count.planned} there are can no longer show a rate {need}, so asking stopped"
    side = "least" if rule.side == "above" else "most"
    bound = rule.bound(count.events, count.asked)
    return f"{found}; the rate is at {side} {bound:.0%} (exact bound) and must be {need}"


def _gap_fault(counts: Mapping[Part, Count], gap: float) -> str:
    teacher, student = counts["teacher right"], counts["student right"]
    return (
        f"it is right on {teacher.events} of {teacher.asked} pairs that the teacher should win and on "
        f"{student.events} of {student.asked} that the student should: the rates may differ by {gap:.0%} (exact "
        f"bounds), and must differ by less than {LARGEST_GAP:.0%}"
    )


def _gap_cannot_be_set(planned: Mapping[Part, int]) -> list[str]:
    pairs: dict[Part, Count] = {part: Count(n, n, n) for part, n in planned.items()}
    gap = largest_gap(pairs)
    if gap is None or gap < LARGEST_GAP:
        return []
    return [
        f"the examination cannot be set: with {planned['teacher right']} pairs that the teacher should win and "
        f"{planned['student right']} that the student should, not even a faultless judge shows that it favours neither"
    ]
