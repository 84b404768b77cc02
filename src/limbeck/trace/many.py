"""Many accounts, many suspects: which of them are found, with the false discovery rate stated beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass

from limbeck.stats.multiple import e_benjamini_hochberg


@dataclass(frozen=True, slots=True)
class Discovery:
    """One hypothesis among several."""

    name: str
    """Such as an account, or an account and a suspect."""
    e_value: float
    found: bool
    """Rejected by e-BH at the level that was stated."""


@dataclass(frozen=True, slots=True)
class Discoveries:
    """What was found among several hypotheses, at a false discovery rate of alpha."""

    alpha: float
    tested: tuple[Discovery, ...]
    """Largest e-value first, ties by name."""

    @property
    def found(self) -> tuple[str, ...]:
        """Names of those that were found."""
        return tuple(d.name for d in self.tested if d.found)

    @property
    def needed(self) -> float:
        """The e-value that a single hypothesis needs among so many, if no other is found."""
        return len(self.tested) / self.alpha


def discover(e_values: Mapping[str, float], alpha: float) -> Discoveries:
    """Apply e-BH (Wang and Ramdas, JRSS B 84, 2022), which holds under any dependence.

    All hypotheses that were looked at must be in: accounts whose audit came to nothing too.

    Args:
        e_values: By name; an audit's e-value where it stopped.
        alpha: Largest expected share of false ones among those found, in (0, 1).

    Raises:
        ValueError: An e-value below 0, or an alpha out of range.
    """
    names = sorted(e_values, key=lambda name: (-e_values[name], name))
    found = e_benjamini_hochberg([e_values[name] for name in names], alpha)
    tested = (Discovery(n, e_values[n], f) for n, f in zip(names, found, strict=True))
    return Discoveries(alpha, tuple(tested))
