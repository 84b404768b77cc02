"""From two models' answers to the judged ledger: examine, vote, correct, claim or say why nothing is claimed."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from limbeck.errors import JudgeError
from limbeck.progress import Progress, Silent
from limbeck.validate.judge.cache import ReplyCache
from limbeck.validate.judge.endpoint import Endpoint, Judge
from limbeck.validate.judge.exam import Examination, sit
from limbeck.validate.judge.material import Entry, Score, gather, witnesses, wrong_by
from limbeck.validate.judge.panel import effective_votes, mean_votes
from limbeck.validate.judge.paper import set_paper
from limbeck.validate.judge.ppi import Corrected, corrected_mean, pool
from limbeck.validate.judge.spec import JudgeSpec, check_judge_names, check_precision
from limbeck.validate.judge.voting import Votes, deal, vote_on_all, vote_until
from limbeck.validate.ledger import (
    NO_JUDGE,
    Answer,
    Interval,
    JudgedLedger,
    JudgeReport,
    Question,
    VerifiedOutcome,
)

CONFIDENCE = 0.95
FEWEST_CLUSTERS = 20
"""Verified clusters that must be left to correct the votes of a family."""
FEWEST_VOTED = 0.9
"""Share of a family's items that at least one licensed judge must have a verdict on."""


@dataclass(frozen=True, slots=True)
class Bench:
    """How the judges are asked; the defaults are what a release should use."""

    seed: int
    """Draws halves, damage and order."""
    lineage: tuple[str, ...] = ()
    """Names of the teacher, the student, and what they were made from: no judge of their family votes."""
    score: Score | None = None
    """The task's own scorer, to see whether a damaged answer is wrong by now; None goes by the gold text."""
    cache: Path | None = None
    """File that keeps replies from run to run; None keeps them for this run alone."""
    confidence: float = CONFIDENCE
    """Of the interval around the win rate."""
    precision: float | None = None
    """Half-width of the interval at which asking stops, in (0, 0.5); None asks about every item."""

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise JudgeError(f"confidence must be in (0, 1), got {self.confidence}")
        check_precision(self.precision)


def judged_ledger(
    items: Sequence[Question],
    teacher_answers: Iterable[Answer],
    student_answers: Iterable[Answer],
    verified: Iterable[VerifiedOutcome],
    judges: Sequence[JudgeSpec | Judge],
    *,
    seed: int,
    lineage: Sequence[str] = (),
    score: Score | None = None,
    cache: Path | None = None,
    confidence: float = CONFIDENCE,
    precision: float | None = None,
    progress: Progress | None = None,
) -> JudgedLedger:
    """Examine judges, let the licensed ones vote on every item, and correct their votes on verified items.

    In every family (task) half of the verified items examine the judges and the other half correct the votes, so
    each family needs verified items that are drawn like the rest. A family without a licensed judge, or with fewer
    than 20 verified clusters to correct by, is left out, and the claim says so.

    Args:
        items: The questions.
        teacher_answers: One answer to each.
        student_answers: One answer to each.
        verified: Outcomes of the items that a program checked; any part of them.
        judges: Endpoints, or whatever else can be asked.
        seed: Same seed, same questions to the judges.
        lineage: Names of the teacher, the student, and what they were made from.
        score: (item, text) to a verified score; makes sure that damaged answers are wrong.
        cache: File of replies; a second run asks nothing twice.
        confidence: Of the interval.
        precision: Stop asking when the interval's half-width is this small; the interval is then one that holds at
            any time of stopping, and wider for as many items.
        progress: Hears of every examination and every batch of votes.

    Returns:
        The ledger; without a licensed judge its claim is None and its reason says why.

    Raises:
        JudgeError: Answers that do not fit the questions, or two judges of one name.
    """
    bench = Bench(seed, tuple(lineage), score, cache, confidence, precision)
    names = [judge.name for judge in judges]
    check_judge_names(names)
    if not judges:
        return NO_JUDGE
    if not items:
        reason = "there are no written answers to compare"
        idle = tuple(JudgeReport(name, False, (reason,), {}) for name in names)
        return JudgedLedger(None, reason, None, idle, None)
    families = gather(items, teacher_answers, student_answers, verified, seed=seed)
    return asyncio.run(_judge(families, judges, bench, progress or Silent()))


Families = Mapping[str, tuple[Entry, ...]]
Exams = Mapping[str, Mapping[str, Examination]]


async def _judge(
    families: Families, judges: Sequence[JudgeSpec | Judge], bench: Bench, progress: Progress
) -> JudgedLedger:
    kept = ReplyCache(bench.cache)
    async with AsyncExitStack() as stack:
        seated = [await _seat(judge, kept, bench, stack) for judge in judges]
        progress.begin("examine judges", len(seated) * len(families), "examinations")
        results = await asyncio.gather(
            *(_examine(judge, families, bench, progress) for judge in seated)
        )
        progress.end()
        exams = {judge.name: result for judge, result in zip(seated, results, strict=True)}
        panels = {
            family: [judge for judge in seated if exams[judge.name][family].licensed]
            for family in families
        }
        votes = await _vote(families, panels, bench, progress)
    return _ledger(families, exams, votes, bench)


async def _seat(
    judge: JudgeSpec | Judge, cache: ReplyCache, bench: Bench, stack: AsyncExitStack
) -> Judge:
    if not isinstance(judge, JudgeSpec):
        return judge
    return await stack.enter_async_context(Endpoint(judge, cache, seed=bench.seed))


async def _examine(
    judge: Judge, families: Families, bench: Bench, progress: Progress
) -> dict[str, Examination]:
    results: dict[str, Examination] = {}
    for place, (family, entries) in enumerate(families.items()):
        paper = set_paper(
            witnesses(entries),
            wrong_by(bench.score, entries),
            seed=[bench.seed, place],
        )
        results[family] = await sit(judge, paper, bench.lineage)
        progress.advance(
            1, f"{judge.name}: {'licensed' if results[family].licensed else 'not licensed'}"
        )
    return results


async def _vote(
    families: Families, panels: Mapping[str, Sequence[Judge]], bench: Bench, progress: Progress
) -> dict[str, Votes]:
    """Ask the panel of every family that has one and can be corrected."""
    ready = [family for family, panel in panels.items() if panel and _settles(families[family])]
    alpha = (1 - bench.confidence) / max(1, len(ready))
    progress.begin("ask judges", sum(len(families[family]) for family in ready), "items")
    votes: dict[str, Votes] = {}
    for place, family in enumerate(ready):
        entries, panel = families[family], panels[family]
        if bench.precision is None:
            votes[family] = await vote_on_all(entries, panel, progress)
        else:
            votes[family] = await vote_until(
                deal(entries, np.random.default_rng([bench.seed, place])),
                panel,
                precision=bench.precision,
                alpha=alpha,
                progress=progress,
            )
    progress.end()
    return votes


def _settles(entries: Sequence[Entry]) -> bool:
    """Say whether enough verified clusters are left to correct votes by."""
    return len({e.cluster for e in entries if e.use == "correct"}) >= FEWEST_CLUSTERS


def _ledger(
    families: Families, exams: Exams, votes: Mapping[str, Votes], bench: Bench
) -> JudgedLedger:
    reports = tuple(_report(name, exams[name], votes) for name in exams)
    told = {family: v for family, v in votes.items() if v.voted >= FEWEST_VOTED}
    if not told:
        reason = _why_not(families, reports, votes)
        return JudgedLedger(None, reason, None, reports, None)
    rate = _win_rate({family: families[family] for family in told}, told, bench)
    independent = effective_votes(_errors(list(told.values())))
    claim = _claim(rate, independent, told, families, bench)
    return JudgedLedger(claim, None, rate, reports, independent)


def _win_rate(families: Families, votes: Mapping[str, Votes], bench: Bench) -> Interval:
    """Return the win rate over all items of the families, each weighing by its items."""
    total = sum(len(entries) for entries in families.values())
    weights = [len(families[family]) / total for family in votes]
    early = [v.anytime for v in votes.values() if v.anytime is not None]
    if len(early) == len(votes):
        point, low, high = (
            sum(w * part[end] for w, part in zip(weights, early, strict=True)) for end in range(3)
        )
        return point, low, high
    parts = [_corrected(v) for v in votes.values()]
    estimate = pool(parts, weights, bench.confidence)
    return estimate.value, estimate.low, estimate.high


def _corrected(votes: Votes) -> Corrected:
    vote_I, _ = mean_votes(votes.vote_JI)
    use_I = np.array([e.use == "correct" for e in votes.entries], dtype=bool)
    won_I = np.array([np.nan if e.won is None else e.won for e in votes.entries])
    clusters_I = np.array([e.cluster for e in votes.entries])
    return corrected_mean(
        won_I[use_I],
        vote_I[use_I],
        _numbered(clusters_I[use_I]),
        vote_I[~use_I],
        _numbered(clusters_I[~use_I]),
    )


def _numbered(labels_I: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    return np.unique(labels_I, return_inverse=True)[1].astype(np.int64)


def _errors(votes: Sequence[Votes]) -> npt.NDArray[np.float64]:
    """Return errors [J, I] over all families; NaN where a judge had no licence."""
    names = list(dict.fromkeys(name for v in votes for name in v.judges))
    blocks: list[npt.NDArray[np.float64]] = []
    for v in votes:
        error_JI = v.error_JI
        block_JI = np.full((len(names), error_JI.shape[1]), np.nan)
        block_JI[[names.index(name) for name in v.judges]] = error_JI
        blocks.append(block_JI)
    return np.concatenate(blocks, axis=1)


def _report(name: str, exams: Mapping[str, Examination], votes: Mapping[str, Votes]) -> JudgeReport:
    """Put a judge's examinations together; sentences and figures carry the family they belong to."""
    alone = len(exams) == 1
    return JudgeReport(
        name=name,
        licensed=any(exam.licensed for exam in exams.values()),
        reasons=tuple(
            reason if alone else f"{family}: {reason}"
            for family, exam in exams.items()
            for reason in exam.reasons
        ),
        figures={
            f"{family}/{figure}": value
            for family, exam in exams.items()
            for figure, value in (exam.figures | _voting(name, votes.get(family))).items()
        },
    )


def _voting(name: str, votes: Votes | None) -> dict[str, float]:
    """Return how a licensed judge did on the items it voted on."""
    if votes is None or name not in votes.judges:
        return {}
    error_I = votes.error_JI[votes.judges.index(name)]
    error_I = error_I[~np.isnan(error_I)]
    lean = {"vote_lean": float(error_I.mean())} if len(error_I) else {}
    return lean | {f"vote_{key}": value for key, value in votes.replies[name].items()}


def _why_not(families: Families, reports: Sequence[JudgeReport], votes: Mapping[str, Votes]) -> str:
    qualified = [report.name for report in reports if report.licensed]
    if not qualified:
        return "no judge qualified"
    reasons = [
        f"{family}: a verdict on {v.voted:.0%} of the items, {FEWEST_VOTED:.0%} needed"
        for family, v in votes.items()
    ]
    reasons += [
        f"{family}: {len({e.cluster for e in entries if e.use == 'correct'})} verified clusters to correct votes by, "
        f"{FEWEST_CLUSTERS} needed"
        for family, entries in families.items()
        if not _settles(entries)
    ]
    return f"{', '.join(qualified)} qualified, but nothing follows: " + "; ".join(reasons)


def _claim(
    rate: Interval,
    independent: float,
    votes: Mapping[str, Votes],
    families: Families,
    bench: Bench,
) -> str:
    judges = list(dict.fromkeys(name for v in votes.values() for name in v.judges))
    asked = sum(len(v.entries) for v in votes.values())
    items = sum(len(families[family]) for family in votes)
    verified = sum(e.use == "correct" for v in votes.values() for e in v.entries)
    point, low, high = rate
    silent = [family for family in families if family not in votes]
    return (
        f"wins {point:.0%} [{low:.0%}, {high:.0%}] against the teacher, ties half, says a panel of "
        f"{len(judges)} licensed {'judge' if len(judges) == 1 else 'judges'} worth {independent:.1f} independent "
        f"votes ({', '.join(judges)}), on {asked} of {items} items of {', '.join(votes)}, corrected by {verified} "
        f"verified outcomes; interval at {bench.confidence:.0%}"
        + (", valid at any time of stopping" if bench.precision is not None else "")
        + (f"; nothing is claimed for {', '.join(silent)}" if silent else "")
    )
