"""The examination of one judge for one family of tasks: sitting it and counting."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from limbeck.validate.judge.ask import ask_all, outcome_of, tally
from limbeck.validate.judge.duel import Outcome
from limbeck.validate.judge.endpoint import Judge, Reply
from limbeck.validate.judge.kinship import kin
from limbeck.validate.judge.licence import (
    ALPHA,
    RULES,
    Count,
    Part,
    cannot_be_set,
    faults,
    hopeless,
    largest_gap,
)
from limbeck.validate.judge.paper import Case

BATCH = 12
"""Duels between two looks at whether the judge can still pass."""


@dataclass(frozen=True, slots=True)
class Examination:
    """How a judge did in one family."""

    licensed: bool
    reasons: tuple[str, ...]
    """Every rule that it failed; where it passed, one sentence that says so."""
    figures: dict[str, float]


async def sit(judge: Judge, paper: Sequence[Case], lineage: Sequence[str]) -> Examination:
    """Let a judge sit an examination; it ends early once the judge cannot pass any more.

    Args:
        judge: Who is asked.
        paper: From `set_paper`.
        lineage: Names of the teacher, the student, and what they were made from.
    """
    planned = _planned(paper)
    refused = kin([judge.name], lineage)
    reasons = [refused] if refused is not None else cannot_be_set(planned)
    if reasons:
        return Examination(False, tuple(reasons), {})
    counts: dict[Part, Count] = {part: Count(0, 0, planned[part]) for part in RULES}
    heard: list[Reply] = []
    for batch in _batches(paper):
        replies = await ask_all(judge, [case.duel for case in batch])
        heard += [reply for both in replies for reply in both]
        for case, both in zip(batch, replies, strict=True):
            _count(counts, case, outcome_of(both))
        reasons = _silent(heard) or _kin_by_own_word(judge, heard, lineage)
        if reasons or hopeless(counts):
            break
    reasons = reasons or faults(counts)
    figures = _figures(counts, heard)
    if reasons:
        return Examination(False, tuple(reasons + _failures(heard)), figures)
    return Examination(True, (_passed(counts),), figures)


def _planned(paper: Sequence[Case]) -> dict[Part, int]:
    known = Counter(case.part for case in paper)
    known["parse"] = 2 * len(paper)
    known["swap"] = known["teacher right"] + known["student right"]
    return {part: known[part] for part in RULES}


def _batches(paper: Sequence[Case]) -> Iterator[Sequence[Case]]:
    """Yield one case alone, for a judge that never answers is then waited for once, and the rest in batches."""
    yield paper[:1]
    for start in range(1, len(paper), BATCH):
        yield paper[start : start + BATCH]


def _count(counts: dict[Part, Count], case: Case, outcome: Outcome) -> None:
    counts["parse"] += Count(outcome.heard, 2, 0)
    if case.part in ("teacher right", "student right"):
        counts["swap"] += Count(outcome.consistent, 1, 0)
    event = "right" if case.part == "padded twin" else "left"
    counts[case.part] += Count(outcome.winner == event, 1, 0)


def _silent(heard: Sequence[Reply]) -> list[str]:
    if any(reply.text is not None for reply in heard):
        return []
    return [f"it answered none of {len(heard)} requests: {heard[-1].failure}"]


def _kin_by_own_word(judge: Judge, heard: Sequence[Reply], lineage: Sequence[str]) -> list[str]:
    stated = {reply.model for reply in heard if reply.model is not None}
    found = kin(sorted(stated - {judge.name}), lineage)
    return [] if found is None else [found]


def _failures(heard: Sequence[Reply]) -> list[str]:
    """Return a sentence on requests that failed, where some did and others did not."""
    failed = [reply.failure for reply in heard if reply.failure is not None]
    if not failed or len(failed) == len(heard):
        return []
    return [f"{len(failed)} of {len(heard)} requests failed, the last one: {failed[-1]}"]


def _passed(counts: Mapping[Part, Count]) -> str:
    cases = sum(count.asked for part, count in counts.items() if part not in ("parse", "swap"))
    return (
        f"it passed all {sum(1 for c in counts.values() if c.asked)} parts of the examination, {cases} pairs in both "
        f"orders, by exact bounds at {1 - ALPHA:.0%}"
    )


def _figures(counts: Mapping[Part, Count], heard: Sequence[Reply]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for part, count in counts.items():
        if count.asked:
            name = part.replace(" ", "_").replace("-", "_")
            figures[name] = count.events / count.asked
            figures[f"{name}_bound"] = RULES[part].bound(count.events, count.asked)
            figures[f"{name}_n"] = count.asked
    gap = largest_gap(counts)
    return figures | ({} if gap is None else {"gap_bound": gap}) | tally(heard)
