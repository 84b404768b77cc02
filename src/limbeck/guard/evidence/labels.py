"""Who is who in recorded histories: class, family and unit of every account and cluster, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.guard.evidence.history import Histories, Ints, Mask
from limbeck.guard.score import Truth

COMPOSED = "composed "
"""What the groups of composed clusters begin with."""
MIXED = -1
"""A cluster of several classes: nothing is learned from it."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The truth about recorded histories; families of copiers are ways of copying."""

    kinds: tuple[str, ...]
    """Honest classes."""
    families: tuple[str, ...]
    """Of honest accounts, then of copiers."""
    kind_of: Mapping[int, int]
    """Honest family to its class."""
    ways: tuple[int, ...]
    """Families of copiers."""
    family_A: Ints
    unit_A: Ints
    trained_A: Mask
    requests_A: Ints
    composed_A: Ints
    """The composed cluster of each account, or -1."""
    family_C: Ints
    trained_C: Mask
    natural_C: Mask

    @property
    def honest_A(self) -> Mask:
        """Which accounts are honest."""
        return ~np.isin(self.family_A, self.ways)

    def families_of(self, kinds: Sequence[str]) -> list[int]:
        """Return the honest families of some classes."""
        wanted = {self.kinds.index(kind) for kind in kinds}
        return [family for family, kind in self.kind_of.items() if kind in wanted]


def label(
    histories: Histories,
    truths: Mapping[str, Truth],
    group: Mapping[str, int],
    trained: set[int],
    requests: Mapping[str, int],
    members: Mapping[str, Sequence[str]],
) -> Labels:
    """Return the labels of histories.

    Args:
        histories: What was recorded.
        truths: Who is who.
        group: Account to its unit.
        trained: Units that are learned from.
        requests: Account to its number of requests.
        members: Cluster to its accounts.
    """
    names = histories.accounts
    kinds = sorted({truths[name].kind for name in names if not truths[name].guilty})
    keys = sorted({_key(truths[name]) for name in names})
    place = {key: n for n, key in enumerate(keys)}
    family_A = np.array([place[_key(truths[name])] for name in names], np.int64)
    cluster_of = {c: n for n, c in enumerate(histories.clusters)}
    is_composed = [cluster.startswith(f"group:{COMPOSED}") for cluster in histories.clusters]
    composed_A = np.full(len(names), -1, np.int64)
    index = {name: n for n, name in enumerate(names)}
    family_C = np.full(len(cluster_of), MIXED, np.int64)
    trained_C = np.zeros(len(cluster_of), bool)
    for cluster, n in cluster_of.items():
        inside = [index[name] for name in members[cluster]]
        if len({truths[names[a]].kind for a in inside}) == 1:
            family_C[n] = family_A[inside[0]]
        trained_C[n] = all(group[names[a]] in trained for a in inside)
        if is_composed[n]:
            composed_A[inside] = n
    return Labels(
        kinds=tuple(kinds),
        families=tuple(f"{kind}: {family}" for _, kind, family in keys),
        kind_of={n: kinds.index(kind) for n, (guilty, kind, _) in enumerate(keys) if not guilty},
        ways=tuple(n for n, (guilty, _, _) in enumerate(keys) if guilty),
        family_A=family_A,
        unit_A=np.array([group[name] for name in names], np.int64),
        trained_A=np.array([group[name] in trained for name in names], bool),
        requests_A=np.array([requests[name] for name in names], np.int64),
        composed_A=composed_A,
        family_C=family_C,
        trained_C=trained_C,
        natural_C=~np.array(is_composed, bool),
    )


def _key(truth: Truth) -> tuple[bool, str, str]:
    return truth.guilty, truth.kind, truth.family
