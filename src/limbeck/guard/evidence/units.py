"""Who counts once: honest accounts that are linked are one unit, for they share their luck.

Besides the groups that a log holds there are composed ones: unlinked accounts of one family, put together as if they shared
a card. A log of few resellers and offices could not say otherwise what a cluster of honest accounts looks like; that they
are composed is said in the report.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from limbeck.guard.observation import Observation
from limbeck.guard.score import Truth
from limbeck.guard.signals.links import links

SIZES = (3, 10, 30)
"""Accounts of a composed cluster."""


def natural_groups(observations: Iterable[Observation]) -> dict[str, int]:
    """Return account to the number of its group: accounts with any link in common are in the same one."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    accounts: dict[str, None] = {}
    for observation in observations:
        account = f"account:{observation.account}"
        accounts.setdefault(observation.account)
        parent.setdefault(account, account)
        for _, link in links(observation):
            parent.setdefault(link, link)
            one, other = root(account), root(link)
            if one != other:
                parent[max(one, other)] = min(one, other)
    number: dict[str, int] = {}
    return {name: number.setdefault(root(f"account:{name}"), len(number)) for name in accounts}


def train_units(
    group: Mapping[str, int], truths: Mapping[str, Truth], *, share: float, least: int, seed: int
) -> set[int]:
    """Return the groups to learn from: of each family a share, of each class at least so many or half.

    The others calibrate; a group is never in both.
    """
    rng = np.random.default_rng(seed)
    families: dict[str, dict[str, list[int]]] = {}
    for account, number in group.items():
        truth = truths[account]
        if not truth.guilty:
            of = families.setdefault(truth.kind, {}).setdefault(truth.family, [])
            if number not in of[-1:]:
                of.append(number)
    chosen: set[int] = set()
    for of in families.values():
        units = sum(len(set(groups)) for groups in of.values())
        wanted = max(share, min(0.5, least / max(1, units)))
        for groups in of.values():
            different = np.array(sorted(set(groups)))
            take = max(1, round(wanted * len(different)))
            chosen.update(int(g) for g in rng.permutation(different)[:take])
    return chosen


def composed(
    group: Mapping[str, int], truths: Mapping[str, Truth], trained: set[int], *, seed: int
) -> dict[str, str]:
    """Return unlinked honest account to the name of the composed cluster that it is put into.

    A cluster's accounts are of one class and family, and all trained on or none.
    """
    rng = np.random.default_rng([seed, 1])
    sizes: dict[int, int] = {}
    for number in group.values():
        sizes[number] = sizes.get(number, 0) + 1
    pools: dict[tuple[str, str, bool], list[str]] = {}
    for account, number in group.items():
        truth = truths[account]
        if not truth.guilty and sizes[number] == 1:
            pools.setdefault((truth.kind, truth.family, number in trained), []).append(account)
    found: dict[str, str] = {}
    for (kind, family, is_trained), accounts in sorted(pools.items()):
        order = [accounts[i] for i in rng.permutation(len(accounts))]
        for n, part in enumerate(_parts(order, rng)):
            found.update(dict.fromkeys(part, f"composed {kind} {family} {is_trained} {n}"))
    return found


def _parts(accounts: Sequence[str], rng: np.random.Generator) -> Iterable[Sequence[str]]:
    at = 0
    while len(accounts) - at >= SIZES[0]:
        size = min(int(rng.choice(SIZES)), len(accounts) - at)
        yield accounts[at : at + size]
        at += size
