"""The rank among siblings is uniform without distillation, and 1 with it."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import TraceError
from limbeck.trace.siblings import (
    RIDGE,
    rank_e_value,
    rank_siblings,
    sibling_statistic,
    siblings_needed,
)

Floats = npt.NDArray[np.float64]


def log_probs(logits_CK: Floats) -> Floats:
    return logits_CK - np.log(np.exp(logits_CK).sum(axis=-1, keepdims=True))


def family(rng: np.random.Generator, siblings: int) -> tuple[Floats, list[Floats]]:
    """Return a base model's logits and teachers that differ from it by a shared and a private part."""
    base_CK, shared_CK = rng.normal(0, 2, (60, 8)), rng.normal(0, 1, (60, 8))
    teachers = [base_CK + shared_CK + rng.normal(0, 0.3, (60, 8)) for _ in range(siblings + 1)]
    return base_CK, teachers


def test_a_student_of_the_teachers_probabilities_ranks_it_first():
    rng = np.random.default_rng(0)
    base_CK, teachers = family(rng, 99)
    student_CK = teachers[0] + rng.normal(0, 0.5, (60, 8))
    logs = [log_probs(x) for x in (student_CK, base_CK, *teachers)]
    found = rank_siblings(logs[0], logs[1], logs[2], logs[3:])
    assert found.rank == 1
    assert found.p_value == pytest.approx(0.01)
    assert found.e_value > 15


def test_a_siblings_student_ranks_the_teacher_anywhere():
    ranks = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        base_CK, teachers = family(rng, 9)
        student_CK = teachers[3] + rng.normal(0, 1.0, (60, 8))
        logs = [log_probs(x) for x in (student_CK, base_CK, *teachers)]
        ranks.append(rank_siblings(logs[0], logs[1], logs[2], logs[3:]).rank)
    assert np.mean(np.array(ranks) <= 2) < 0.35  # 0.2 by chance, less for the sibling that is first
    assert max(ranks) > 7


def test_the_order_of_the_siblings_does_not_matter():
    rng = np.random.default_rng(4)
    base_CK, teachers = family(rng, 5)
    suspect_CK = log_probs(rng.normal(0, 2, (60, 8)))
    stacked = np.stack([log_probs(t) for t in teachers])
    found_J = sibling_statistic(suspect_CK, log_probs(base_CK), stacked, RIDGE)
    order = rng.permutation(6)
    again_J = sibling_statistic(suspect_CK, log_probs(base_CK), stacked[order], RIDGE)
    assert again_J == pytest.approx(found_J[order])


@given(st.integers(1, 200))
def test_the_e_value_of_a_uniform_rank_has_mean_one(count: int):
    mean = sum(rank_e_value(r, count) for r in range(1, count + 1)) / count
    assert mean == pytest.approx(1)


def test_a_tie_goes_against_the_accusation():
    rng = np.random.default_rng(0)
    base_CK, teachers = family(rng, 1)
    logs = [log_probs(x) for x in (teachers[0], base_CK, teachers[0], teachers[0], teachers[1])]
    assert rank_siblings(logs[0], logs[1], logs[2], logs[3:]).rank == 2


def test_siblings_that_are_all_the_same_say_so():
    one = log_probs(np.zeros((3, 4)))
    with pytest.raises(TraceError, match="no luck of their own"):
        rank_siblings(one, one, one, [one, one])


def test_other_contexts_and_missing_siblings_are_refused():
    one, other = log_probs(np.zeros((3, 4))), log_probs(np.zeros((2, 4)))
    with pytest.raises(TraceError, match="same contexts"):
        rank_siblings(one, one, one, [other])
    with pytest.raises(TraceError, match="at least one sibling"):
        rank_siblings(one, one, one, [])


def test_ninety_nine_siblings_are_the_fewest_for_one_in_a_hundred():
    assert siblings_needed(0.01) == 99
    assert siblings_needed(0.05) == 19
