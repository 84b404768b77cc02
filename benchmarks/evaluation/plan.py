"""Everything that decides the figures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from traffic.account import HONEST
from traffic.campaigns import MIXES, SIZES, VARIATIONS, campaign, training
from traffic.census import DAYS
from traffic.census import Plan as Census
from traffic.copier import Campaign
from traffic.folds import Fold

BUDGETS = (0.001, 0.01)
TARGET = (50, 0.25)
"""Accounts and mix of the campaign that the target is about."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how much of it."""

    data: Path
    work: Path
    seed: int
    quick: bool
    accounts: int
    """Honest accounts of each class in each fold."""
    fitted: int
    """Campaigns in the log that is fitted on."""
    grid: bool
    queries: int
    """Requests of a campaign, or one for each account if those are more."""
    repeats: int
    """Campaigns of the target's size for each tactic."""
    strategies: int
    """Random strategies of the white-box copier, and rounds of search after them."""
    control: int
    """Honest accounts of each class of the artefact control."""
    gain: Path | None
    unmimic: Path | None

    @property
    def alpha(self) -> float:
        """The least rate that so many honest accounts can promise, at best 0.1%."""
        return supported(self.accounts)

    @property
    def directions(self) -> Sequence[tuple[str, str]]:
        """(fitted on, judged on)."""
        return (("a", "b"),) if self.quick else (("a", "b"), ("b", "a"))


def supported(accounts: int) -> float:
    """Return what the accounts of a class can promise that `fit` does not learn from: four fifths, or all but 40 or half."""
    learned = min(max(40, accounts // 5), accounts // 2)
    return max(BUDGETS[0], 1 / (0.8 * (accounts - learned)))


@dataclass(frozen=True, slots=True)
class Entry:
    """A campaign, and the cell of a table that it belongs to."""

    cell: str
    campaign: Campaign


def fit_census(plan: Plan, fold: Fold) -> Census:
    """Return the log that is fitted on."""
    return Census(
        fold,
        plan.seed,
        dict.fromkeys(HONEST, plan.accounts),
        training(fold, plan.fitted, plan.seed),
    )


def mixed_census(plan: Plan, fold: Fold) -> Census:
    """Return a log with a campaign of each tactic among some of the honest accounts."""
    among = [
        campaign(fold, n, accounts=10 * (n % 2) + 1, mix=1.0, queries=300, seed=plan.seed + 900 + n)
        for n in range(len(fold.tactics))
    ]
    return Census(
        fold, plan.seed + 1, dict.fromkeys(HONEST, max(8, plan.accounts // 5)), tuple(among)
    )


def honest_census(plan: Plan, fold: Fold) -> Census:
    """Return honest accounts alone."""
    return Census(fold, plan.seed + 1, dict.fromkeys(HONEST, plan.accounts))


def entries(plan: Plan, fold: Fold) -> list[Entry]:
    """Return the campaigns that start after the honest week."""
    found: list[Entry] = []

    def add(
        cell: str, place: int, accounts: int, mix: float, queries: int, seed: int, **changes: object
    ) -> None:
        made = campaign(
            fold, place, accounts=accounts, mix=mix, queries=queries, seed=plan.seed + seed
        )
        named = replace(made, name=f"{made.name}-{len(found)}", day=DAYS, **changes)
        found.append(Entry(cell, named))

    count = len(fold.tactics)
    for place in range(count):
        for repeat in range(plan.repeats):
            add("target", place, *TARGET, plan.queries, 100 + 10 * repeat + place)
        for name, disguise, tempo, linked in VARIATIONS if plan.grid else VARIATIONS[:2]:
            changes = {"disguise": disguise, "tempo": tempo, "linked": linked}
            add(f"variation/{name}", place, *TARGET, plan.queries, 200 + place, **changes)
    # Two tactics to a cell, taken in turns, so that each tactic meets each number of accounts and each mix.
    for row, accounts in enumerate(SIZES if plan.grid else SIZES[:2]):
        for column, mix in enumerate(MIXES if plan.grid else (0.25, 1.0)):
            for place in (row + column, row + column + count // 2):
                add(
                    f"grid/{accounts}x{mix:g}",
                    place % count,
                    accounts,
                    mix,
                    plan.queries,
                    300 + place,
                )
    return found
