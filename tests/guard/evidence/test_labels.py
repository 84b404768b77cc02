from functools import cache

import numpy as np

from limbeck.guard.evidence.history import Histories
from limbeck.guard.evidence.labels import COMPOSED, Labels
from limbeck.guard.evidence.ranking import LOWEST, Peaks, rank, unit_peaks
from limbeck.guard.fit import Plan, record
from tinytraffic import compose

TRAFFIC = compose(honest=16, seed=4)


@cache
def recorded() -> tuple[Histories, Labels]:
    return record(lambda: TRAFFIC.observations, TRAFFIC.truths, Plan(least=6), secret=b"test")


def test_every_account_has_its_family_and_every_family_its_class() -> None:
    histories, labels = recorded()
    for n, name in enumerate(histories.accounts):
        truth = TRAFFIC.truths[name]
        assert labels.families[labels.family_A[n]] == f"{truth.kind}: {truth.family}"
        assert bool(labels.honest_A[n]) != truth.guilty
    for family in labels.families_of(["chat", "agent"]):
        assert labels.families[family].split(":")[0] in {"chat", "agent"}
    assert {labels.families[way].split(":")[0] for way in labels.ways} == {"copier"}


def test_clusters_are_labelled_by_their_accounts_and_composed_ones_told_apart() -> None:
    histories, labels = recorded()
    for n, name in enumerate(histories.clusters):
        is_composed = name.startswith(f"group:{COMPOSED}")
        assert bool(labels.natural_C[n]) != is_composed
        if is_composed:
            inside = np.flatnonzero(labels.composed_A == n)
            assert set(labels.family_A[inside]) == {labels.family_C[n]}
            assert set(labels.trained_A[inside]) == {labels.trained_C[n]}
        else:
            assert labels.family_C[n] in labels.ways


def test_units_rank_once_however_many_accounts_they_have() -> None:
    _, labels = recorded()
    accounts = len(labels.family_A)
    score_ARJ = np.arange(accounts, dtype=float).reshape(accounts, 1, 1)
    nothing_ARJ = np.full_like(score_ARJ, LOWEST)
    peaks = Peaks(score_ARJ, nothing_ARJ, nothing_ARJ)
    guilty_A = ~labels.honest_A
    highest_N = unit_peaks(peaks, labels, guilty_A)[:, 0]
    expected = [
        np.flatnonzero(labels.unit_A == u).max() for u in np.unique(labels.unit_A[guilty_A])
    ]
    assert sorted(highest_N) == sorted(expected)


def test_a_family_that_is_left_out_does_not_rank() -> None:
    _, labels = recorded()
    accounts = len(labels.family_A)
    peaks = Peaks(*(np.zeros((accounts, 1, 1)) for _ in range(3)))
    family = labels.families_of(["chat"])[0]
    whole, part = (rank(peaks, labels, {"chat": ("chat",)}, without=f)[0] for f in (None, family))
    assert 0 < len(part) < len(whole)
