from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_table

from limbeck.stats.paired import Paired, clustered_mean, difference, flips, lift, mcnemar, pair

COUNTS = st.integers(0, 60)


@given(COUNTS, COUNTS)
def test_mcnemars_exact_test_is_that_of_statsmodels(lost: int, gained: int) -> None:
    table = np.array([[5, lost], [gained, 7]])
    known: Any = mcnemar_table(table, exact=True)
    assert mcnemar(lost, gained) == pytest.approx(known.pvalue)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_the_clustered_error_is_that_of_statsmodels(seed: int, clusters: int) -> None:
    rng = np.random.default_rng(seed)
    cluster_I = np.concatenate([np.arange(clusters), rng.integers(0, clusters, 40)])
    value_I = rng.normal(size=len(cluster_I)) + 0.5 * cluster_I
    mean, error = clustered_mean(value_I, cluster_I)
    fit = sm.OLS(value_I, np.ones_like(value_I)).fit(
        cov_type="cluster", cov_kwds={"groups": cluster_I}
    )
    assert mean == pytest.approx(fit.params[0])
    assert error == pytest.approx(fit.bse[0])


@given(st.integers(0, 2**32 - 1), st.integers(2, 60))
def test_without_clusters_the_difference_is_the_paired_t_test_of_scipy(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    teacher, student = rng.random(n), rng.random(n)
    found = difference(pair(list(teacher), list(student), 0.0))
    known = stats.ttest_rel(student, teacher).confidence_interval(0.95)
    assert found is not None
    assert found.value == pytest.approx(float(np.mean(student - teacher)))
    assert found.low == pytest.approx(max(-1, known.low))
    assert found.high == pytest.approx(min(1, known.high))
    assert found.method == "paired t"


def test_one_cluster_gives_no_interval() -> None:
    task = pair([1, 0, 1], [0, 0, 1], 0.5, ["film"] * 3)
    assert difference(task) is None
    assert clustered_mean(task.student_I, task.cluster_I)[1] == float("inf")


def test_repeating_every_item_within_its_cluster_changes_no_error() -> None:
    rng = np.random.default_rng(3)
    value_I = rng.random(30)
    once = clustered_mean(value_I, np.arange(30))
    thrice = clustered_mean(np.repeat(value_I, 3), np.repeat(np.arange(30), 3))
    assert thrice == pytest.approx(once)


def test_lift_is_0_at_chance_and_1_at_perfection() -> None:
    assert lift(np.array([0.25, 1.0, 0.0]), np.array([0.25, 0.25, 0.25])) == pytest.approx(
        [0, 1, -1 / 3]
    )


def test_flips_count_what_was_lost_and_gained() -> None:
    found = flips(pair([1, 1, 1, 0, 0], [1, 0, 0, 1, 0], 0.0))
    assert found is not None
    assert (found.lost, found.gained) == (2, 1)
    assert found.p_value == 1.0


def test_clustered_items_have_no_mcnemar_p_and_graded_scores_no_flips() -> None:
    clustered = flips(pair([1, 1, 0], [0, 1, 1], 0.0, ["a", "a", "b"]))
    assert clustered is not None
    assert clustered.p_value is None
    assert flips(pair([0.5, 1], [1, 1], 0.0)) is None


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        (([], [], 0.0), "at least one"),
        (([1], [1, 0], 0.0), "equally many"),
        (([1.5], [1], 0.0), "teacher's scores"),
        (([1], [-0.1], 0.0), "student's scores"),
        (([1], [float("nan")], 0.0), "student's scores"),
        (([1], [1], 1.0), "chance must be"),
    ],
)
def test_scores_that_cannot_be_are_refused(
    scores: tuple[list[float], list[float], float], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        pair(*scores)


def test_clusters_are_numbered_without_gaps() -> None:
    task: Paired = pair([1, 0, 1], [1, 1, 0], [0.5, 0.25, 0.5], ["b", "a", "b"])
    assert task.cluster_I.tolist() == [1, 0, 1]
    assert (task.items, task.clusters, task.binary) == (3, 2, True)
