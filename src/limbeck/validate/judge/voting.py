"""A panel's votes on a family of items: all of them, or round by round until the answer is precise enough."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from limbeck.progress import Progress
from limbeck.validate.judge.ask import ask_all, outcome_of, tally
from limbeck.validate.judge.endpoint import Judge, Reply
from limbeck.validate.judge.material import Entry
from limbeck.validate.judge.panel import mean_votes, vote_matrix
from limbeck.validate.judge.sequential import HIGHEST, LOWEST, Betting, next_power

Doubles = npt.NDArray[np.float64]

BATCH = 16
"""Items, or rounds, that are asked about at once."""
_TIE = 0.5


@dataclass(frozen=True, slots=True)
class Votes:
    """What a panel said of the items it was asked about."""

    judges: tuple[str, ...]
    entries: tuple[Entry, ...]
    vote_JI: Doubles
    """The student's share of the win by judge and item; NaN where a judge gave no verdict in one of the orders."""
    replies: Mapping[str, Mapping[str, float]]
    """By judge: how many replies came, how many failed, how many held no verdict."""
    anytime: tuple[float, float, float] | None = None
    """Point, low and high that hold whenever one stops; None where every item was asked about."""

    @property
    def voted(self) -> float:
        """Share of the items asked about on which there is a vote."""
        return float(mean_votes(self.vote_JI)[1].mean())

    @property
    def error_JI(self) -> Doubles:
        """Votes minus verified outcomes, on the items whose outcome corrects and that a judge was needed for."""
        used_I = np.array([e.use == "correct" and not e.same for e in self.entries], dtype=bool)
        won_I = np.array([np.nan if e.won is None else e.won for e in self.entries])
        return (self.vote_JI - won_I)[:, used_I]


@dataclass(frozen=True, slots=True)
class Round:
    """One verified cluster with its share of the items that judges alone have seen."""

    verified: tuple[Entry, ...]
    others: tuple[Entry, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything that is asked about in this round."""
        return (*self.verified, *self.others)

    @property
    def weight(self) -> int:
        """Its size, by which it counts."""
        return len(self.verified)

    def value(self, vote: Mapping[str, float], power: float) -> float:
        """Return the round's corrected value, in [-1, 2]."""
        power = power if self.others else 0.0
        left = [_won(e) - power * vote[e.question.item] for e in self.verified]
        seen = [power * vote[e.question.item] for e in self.others]
        value = math.fsum(left) / len(left) + (math.fsum(seen) / len(seen) if seen else 0.0)
        return min(HIGHEST, max(LOWEST, value))  # rounding may step over


async def vote_on_all(
    entries: Sequence[Entry], panel: Sequence[Judge], progress: Progress
) -> Votes:
    """Ask a panel about every item, in both orders."""
    floor = _Floor(panel, progress)
    for start in range(0, len(entries), BATCH):
        await floor.hear(entries[start : start + BATCH])
    return floor.votes()


async def vote_until(
    rounds: Sequence[Round],
    panel: Sequence[Judge],
    *,
    precision: float,
    alpha: float,
    progress: Progress,
) -> Votes:
    """Ask round by round until the interval's half-width is `precision`, or nothing is left.

    Args:
        rounds: From `deal`.
        panel: Licensed judges.
        precision: Half-width, in (0, 0.5).
        alpha: Chance that the interval misses at any time at all.
        progress: Hears of every batch.
    """
    floor = _Floor(panel, progress)
    largest = max(r.weight for r in rounds)
    ratio = sum(len(r.others) for r in rounds) / sum(r.weight for r in rounds)
    betting = Betting(alpha)
    values: list[float] = []
    known: list[tuple[float, float]] = []
    low, high = 0.0, 1.0
    for start in range(0, len(rounds), BATCH):
        batch = rounds[start : start + BATCH]
        power = next_power(known, ratio)  # from earlier batches alone, or the bets were not fair
        vote = await floor.hear([e for r in batch for e in r.entries])
        for r in batch:
            values.append(r.value(vote, power))
            betting.bet(values[-1], r.weight / largest)
        known += [(_won(e), vote[e.question.item]) for r in batch for e in r.verified]
        low, high = betting.interval()
        if high - low <= 2 * precision:
            break
    point = float(np.average(values, weights=[r.weight for r in rounds[: len(values)]]))
    return floor.votes((min(high, max(low, point)), low, high))


def deal(entries: Sequence[Entry], rng: np.random.Generator) -> tuple[Round, ...]:
    """Return as many rounds as there are verified clusters that correct, the other items dealt out evenly.

    Args:
        entries: Items of one family.
        rng: Draws both orders, so that the first rounds are a sample of all.
    """
    clusters: dict[str, list[Entry]] = {}
    for e in entries:
        if e.use == "correct":
            clusters.setdefault(e.cluster, []).append(e)
    verified = list(clusters.values())
    others = [e for e in entries if e.use != "correct"]
    others = [others[i] for i in rng.permutation(len(others))]
    order = rng.permutation(len(verified))
    return tuple(
        Round(tuple(verified[i]), tuple(others[place :: len(verified)]))
        for place, i in enumerate(order)
    )


class _Floor:
    """Collects what a panel says, batch by batch."""

    def __init__(self, panel: Sequence[Judge], progress: Progress) -> None:
        self._panel = panel
        self._progress = progress
        self._entries: list[Entry] = []
        self._votes: list[list[float | None]] = [[] for _ in panel]
        self._heard: list[list[Reply]] = [[] for _ in panel]
        self._neutral = _TIE

    async def hear(self, entries: Sequence[Entry]) -> dict[str, float]:
        """Return the panel's vote on each item, by item.

        Where no judge gave a verdict it is the mean vote of earlier batches: what tells nothing about the item and
        was known before it.
        """
        asked = [e for e in entries if not e.same]
        for j, judge in enumerate(self._panel):
            replies = await ask_all(judge, [e.duel for e in asked])
            self._heard[j] += [reply for both in replies for reply in both]
            found = {
                e.question.item: outcome_of(r).share for e, r in zip(asked, replies, strict=True)
            }
            self._votes[j] += [found.get(e.question.item, _TIE) for e in entries]
        self._entries += entries
        self._progress.advance(len(entries))
        fresh_JI = vote_matrix([row[len(row) - len(entries) :] for row in self._votes])
        mean_I, voted_I = mean_votes(fresh_JI)
        vote_I = np.where(voted_I, mean_I, self._neutral)
        self._neutral = float(mean_votes(vote_matrix(self._votes))[0].mean())
        return {e.question.item: float(v) for e, v in zip(entries, vote_I, strict=True)}

    def votes(self, anytime: tuple[float, float, float] | None = None) -> Votes:
        """Return everything heard."""
        names = tuple(judge.name for judge in self._panel)
        replies = {name: tally(heard) for name, heard in zip(names, self._heard, strict=True)}
        return Votes(names, tuple(self._entries), vote_matrix(self._votes), replies, anytime)


def _won(entry: Entry) -> float:
    won = entry.won
    if won is None:
        raise ValueError(f"item {entry.question.item} was not verified")
    return won
