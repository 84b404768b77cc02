"""Thresholds that keep false accusations within a budget in every class, and what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass

from limbeck.stats.proportion import clopper_pearson


@dataclass(frozen=True, slots=True)
class Accusations:
    """False accusations in one class."""

    kind: str
    accounts: int
    accused: int

    @property
    def rate(self) -> float:
        """Share accused."""
        return self.accused / self.accounts

    @property
    def upper(self) -> float:
        """Upper end of the exact two-sided 95% interval."""
        return clopper_pearson(self.accused, self.accounts).high


def threshold(peak: Mapping[str, float], kind: Mapping[str, str], budget: float) -> float:
    """Return the lowest threshold above which at most `budget` of the accounts of each class come.

    Args:
        peak: Account to its highest score.
        kind: Account to its honest class.
        budget: Share of each class, from 0 to 1; fewer accounts than 1/budget allow none.
    """
    return max(
        sorted(scores, reverse=True)[int(budget * len(scores))]
        for scores in _by_class(peak, kind).values()
    )


def accusations(
    peak: Mapping[str, float], kind: Mapping[str, str], above: float
) -> list[Accusations]:
    """Return the false accusations of each class above a threshold, the worst class first."""
    found = [
        Accusations(name, len(scores), sum(score > above for score in scores))
        for name, scores in _by_class(peak, kind).items()
    ]
    return worst_first(found)


def worst_first(found: list[Accusations]) -> list[Accusations]:
    """Return classes by their rate, then by their bound, highest first."""
    return sorted(found, key=lambda one: (-one.rate, -one.upper, one.kind))


def _by_class(peak: Mapping[str, float], kind: Mapping[str, str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for account, score in peak.items():
        found.setdefault(kind[account], []).append(score)
    return found
