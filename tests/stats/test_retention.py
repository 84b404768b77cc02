"""Retention against a second way to compute it, and against what its interval promises."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from limbeck.stats import anytime
from limbeck.stats.paired import Paired, pair
from limbeck.stats.retention import FEW, Moments, fieller, margin_test, moments, retention

CORNERS = np.array(list(itertools.product((0.0, 1.0), repeat=2)))
"""Teacher and student: neither, student alone, teacher alone, both."""


def draw(
    rng: np.random.Generator,
    n: int,
    shares: tuple[float, float, float, float] = (0.15, 0.06, 0.12, 0.67),
    chance: float = 0.25,
) -> Paired:
    rows = CORNERS[rng.choice(4, n, p=shares)]
    return pair(list(rows[:, 0]), list(rows[:, 1]), chance)


def true_retention(shares: tuple[float, ...], chance: float) -> float:
    neither, gained, lost, both = shares
    assert neither >= 0
    return (both + gained - chance) / (both + lost - chance)


@given(st.integers(0, 2**32 - 1), st.integers(30, 300), st.sampled_from([0.9, 0.95, 0.99]))
def test_fiellers_ends_are_where_the_t_statistic_meets_its_quantile(
    seed: int, n: int, confidence: float
) -> None:
    task = draw(np.random.default_rng(seed), n)
    found = moments([task])
    t = float(stats.t.ppf((1 + confidence) / 2, found.freedom))
    ends = fieller(found, t)
    if ends is None:
        return

    def off(ratio: float) -> float:
        return abs(found.student - ratio * found.teacher) - t * found.error(ratio)

    point = found.student / found.teacher
    known = (optimize.brentq(off, point - 20, point), optimize.brentq(off, point, point + 20))
    assert ends == pytest.approx(known, abs=1e-6)


def test_fieller_agrees_with_the_worked_form_of_the_textbook() -> None:
    # g = t^2 v22 / b^2; R = [ (r - g v12 / v22) -/+ (t / b) sqrt(v11 - 2 r v12 + r^2 v22 - g (v11 - v12^2 / v22)) ]
    # / (1 - g): Finney, Statistical Method in Biological Assay (1978), section 2.5.
    found = Moments(0.41, 0.52, 0.0011, 0.0013, 0.0006, 80)
    t = 1.99
    r, b, v11, v22, v12 = 0.41 / 0.52, 0.52, 0.0011, 0.0013, 0.0006
    g = t**2 * v22 / b**2
    root = math.sqrt(v11 - 2 * r * v12 + r**2 * v22 - g * (v11 - v12**2 / v22))
    known = [((r - g * v12 / v22) + sign * t / b * root) / (1 - g) for sign in (-1, 1)]
    assert fieller(found, t) == pytest.approx(known)


def test_without_corners_mean_and_error_are_those_of_the_plain_mean() -> None:
    task = draw(np.random.default_rng(1), 200)
    found = moments([task], corners=False)
    lift_I = (task.student_I - 0.25) / 0.75
    assert found.student == pytest.approx(lift_I.mean())
    assert found.variance_student == pytest.approx(lift_I.var(ddof=1) / 200)
    assert found.freedom == pytest.approx(199)


@given(st.integers(0, 2**32 - 1))
def test_chance_level_and_scale_do_not_matter_to_a_single_tasks_point(seed: int) -> None:
    task = draw(np.random.default_rng(seed), 200)
    found = retention([task])
    by_hand = (task.student_I.mean() - 0.25) / (task.teacher_I.mean() - 0.25)
    assert found.point is None or found.point == pytest.approx(by_hand)


def test_every_task_counts_alike_whatever_its_size() -> None:
    rng = np.random.default_rng(2)
    small, large = draw(rng, 60), draw(rng, 600, chance=0.5)
    found = retention([small, large])
    student, teacher = (
        sum(np.mean((x - t.chance_I) / (1 - t.chance_I)) for t, x in rows)
        for rows in (
            [(t, t.student_I) for t in (small, large)],
            [(t, t.teacher_I) for t in (small, large)],
        )
    )
    assert found.point == pytest.approx(student / teacher)


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_copies_of_an_item_in_its_cluster_leave_the_interval_almost_as_it_was(
    seed: int, copies: int
) -> None:
    task = draw(np.random.default_rng(seed), 200)
    labels = [str(i) for i in np.repeat(np.arange(200), copies)]
    many = pair(
        list(np.repeat(task.teacher_I, copies)),
        list(np.repeat(task.student_I, copies)),
        0.25,
        labels,
    )
    one, more = retention([task]), retention([many])
    assert one.low is not None
    assert more.low is not None
    assert more.low == pytest.approx(one.low, abs=0.02)
    # Had the copies counted as independent, the interval would have shrunk by sqrt(copies).
    alone = retention([pair(list(many.teacher_I), list(many.student_I), 0.25)])
    assert alone.low is not None
    assert alone.low > more.low


@pytest.mark.parametrize("n", [150, 400])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(n: int) -> None:
    shares, chance = (0.15, 0.06, 0.12, 0.67), 0.25
    rng, truth, runs = np.random.default_rng(0), true_retention(shares, chance), 600
    inside = 0
    for _ in range(runs):
        found = retention([draw(rng, n, shares, chance)])
        inside += (
            found.low is not None and found.high is not None and found.low <= truth <= found.high
        )
    assert 0.93 <= inside / runs <= 0.975


@pytest.mark.parametrize(
    ("shares", "n"), [((0.1, 0.05, 0.1, 0.75), 60), ((0.05, 0.02, 0.06, 0.87), 300)]
)
def test_a_student_exactly_at_the_margin_seldom_keeps(
    shares: tuple[float, float, float, float], n: int
) -> None:
    rng, margin, runs = np.random.default_rng(5), true_retention(shares, 0.25), 250
    kept = 0
    for _ in range(runs):
        found = retention([draw(rng, n, shares, 0.25)])
        kept += found.low is not None and found.low > margin
    assert kept / runs <= 0.05


def test_a_teacher_at_chance_gets_no_interval_and_a_reason() -> None:
    task = pair([1] * 152 + [0] * 148, [1] * 120 + [0] * 64 + [1] * 116, 0.5)
    found = retention([task])
    assert not found.known
    assert (found.point, found.low, found.high) == (None, None, None)
    assert found.reason is not None
    assert "cannot be told from chance" in found.reason


def test_a_teacher_below_chance_gets_no_interval_either() -> None:
    found = retention([draw(np.random.default_rng(4), 400, (0.7, 0.1, 0.1, 0.1), 0.5)])
    assert found.reason is not None


def test_ten_right_answers_of_ten_are_no_proof() -> None:
    found = retention([pair([1] * 10, [1] * 10, 0.25)])
    assert found.method == "betting"
    assert found.low is None or found.low < 0.8


def test_few_differing_items_are_left_to_betting_and_many_are_not() -> None:
    few = pair([1] * 100 + [0] * 100, [1] * 100 + [0] * 91 + [1] * 9, 0.0)
    many = pair([1] * 100 + [0] * 100, [1] * 100 + [0] * 90 + [1] * 10, 0.0)
    assert (retention([few]).differing, retention([few]).method) == (FEW - 1, "betting")
    assert (retention([many]).differing, retention([many]).method) == (FEW, "Fieller")


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 1))
@settings(max_examples=50)
def test_interval_and_test_tell_the_same_about_a_margin(seed: int, margin: float) -> None:
    task = draw(np.random.default_rng(seed), 250)
    found, test = retention([task]), margin_test([task], margin)
    if (
        found.low is None
        or found.high is None
        or min(abs(found.low - margin), abs(found.high - margin)) < 1e-3
    ):
        return
    assert (found.low > margin) == (test.p_keeps < 0.025)
    assert (found.high < margin) == (test.p_loses < 0.025)


def test_one_cluster_is_no_evidence() -> None:
    task = pair([1, 1, 0] * 20, [1, 0, 0] * 20, 0.0, ["user"] * 60)
    found = retention([task])
    assert found.low is None or (found.high is not None and found.high - found.low > 1)


def test_no_task_and_an_impossible_confidence_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        retention([])
    with pytest.raises(ValueError, match="confidence"):
        retention([draw(np.random.default_rng(0), 30)], 0)


def test_watching_and_stopping_covers_the_truth_at_every_look() -> None:
    shares, chance = (0.15, 0.06, 0.12, 0.67), 0.25
    truth, rng, runs = true_retention(shares, chance), np.random.default_rng(9), 100
    missed = 0
    for _ in range(runs):
        task = draw(rng, 400, shares, chance)
        dealt = anytime.schedule([task.cluster_I], seed=1)
        played = anytime.play(dealt, [task])
        up_J, down_J = anytime.evidence(played, truth)
        missed += bool(max(up_J.max(), down_J.max()) >= math.log(2 / 0.05))
    assert missed / runs <= 0.05
