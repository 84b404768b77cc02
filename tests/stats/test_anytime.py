import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.stats import anytime
from limbeck.stats.paired import Paired, pair


def task(seed: int, n: int, chance: float = 0.25, clusters: int | None = None) -> Paired:
    rng = np.random.default_rng(seed)
    teacher = (rng.random(n) < 0.8).astype(float)
    student = np.where(rng.random(n) < 0.85, teacher, 1 - teacher)
    labels = None if clusters is None else [str(i) for i in rng.integers(0, clusters, n)]
    return pair(list(teacher), list(student), chance, labels)


def rounds(*tasks: Paired, seed: int = 0) -> anytime.Rounds:
    dealt = anytime.schedule([t.cluster_I for t in tasks], seed=seed)
    return anytime.play(dealt, tasks)


@given(st.integers(0, 2**32 - 1), st.floats(-1, 3))
def test_no_bet_can_lose_more_than_the_stake(seed: int, ratio: float) -> None:
    up_J, down_J = anytime.evidence(rounds(task(seed, 60), task(seed + 1, 90, 0.5)), ratio)
    assert not np.isnan(up_J).any()
    assert not np.isnan(down_J).any()


@given(st.integers(0, 2**32 - 1))
def test_the_mean_over_rounds_is_the_mean_over_tasks_of_their_mean_lifts(seed: int) -> None:
    one, two = task(seed, 60, 0.25, clusters=20), task(seed + 1, 90, 0.5, clusters=30)
    played = rounds(one, two)
    for sum_J, who in ((played.teacher_J, "teacher_I"), (played.student_J, "student_I")):
        lifts = [np.mean((getattr(t, who) - t.chance_I) / (1 - t.chance_I)) for t in (one, two)]
        assert sum_J.mean() == pytest.approx(np.mean(lifts))
    assert played.weight_J.mean() == pytest.approx(1)


def test_a_cluster_is_never_torn_apart_and_every_round_is_played() -> None:
    one, two = task(1, 200, clusters=40), task(2, 50)
    dealt = anytime.schedule([one.cluster_I, two.cluster_I], seed=3)
    assert dealt.count == min(one.clusters, 50)
    for item_I, round_I in zip((one.cluster_I, two.cluster_I), dealt.round_KI, strict=True):
        assert len({(c, r) for c, r in zip(item_I, round_I, strict=True)}) == len(set(item_I))
        assert set(round_I.tolist()) == set(range(dealt.count))


@given(st.integers(0, 2**32 - 1), st.permutations(list(range(30))))
@settings(max_examples=30)
def test_the_order_of_the_rounds_wins_nothing(seed: int, order: list[int]) -> None:
    played = rounds(task(seed, 30))
    moved = anytime.Rounds(
        played.student_J[order],
        played.teacher_J[order],
        played.weight_J[order],
        played.guess_J[order],
    )
    assert anytime.evidence(moved, 0.9)[0][-1] == pytest.approx(
        anytime.evidence(played, 0.9)[0][-1]
    )


def test_under_the_null_capital_above_1_over_alpha_is_as_rare_as_alpha() -> None:
    # Student and teacher are draws of one model: the ratio is 1 and no bettor should get rich, ever.
    rng, rich, runs = np.random.default_rng(8), 0, 400
    for _ in range(runs):
        teacher, student = (rng.random((2, 120)) < 0.8).astype(float)
        up_J, _ = anytime.evidence(rounds(pair(list(teacher), list(student), 0.25)), 1.0)
        rich += up_J.max() >= math.log(1 / 0.05)
    assert rich / runs <= 0.05


def test_the_interval_holds_the_point_and_shrinks_with_items() -> None:
    widths: list[float] = []
    for n in (200, 800, 3200):
        scores = task(4, n)
        found = anytime.ratio_interval(rounds(scores), 0.95)
        assert found is not None
        point = (scores.student_I.mean() - 0.25) / (scores.teacher_I.mean() - 0.25)
        assert found[0] < point < found[1]
        widths.append(found[1] - found[0])
    assert widths == sorted(widths, reverse=True)


def test_the_ends_are_where_a_bettor_has_just_enough() -> None:
    played = rounds(task(4, 400))
    found = anytime.ratio_interval(played, 0.95)
    assert found is not None
    limit = math.log(2 / 0.05)
    assert anytime.evidence(played, found[0])[0][-1] == pytest.approx(limit, abs=0.02)
    assert anytime.evidence(played, found[1])[1][-1] == pytest.approx(limit, abs=0.02)


def test_what_cannot_be_lost_and_was_won_refutes_for_good() -> None:
    # Without guessing a score is never below 0, so "the student is worse than 0" falls with the first point.
    up_J, _ = anytime.evidence(rounds(pair([1, 1, 1], [0, 1, 0], 0.0)), 0.0)
    assert up_J[-1] == np.inf


def test_a_prefix_of_the_rounds_needs_the_scores_of_its_items_alone() -> None:
    whole = task(6, 80)
    dealt = anytime.schedule([whole.cluster_I], seed=2)
    all_rounds = anytime.play(dealt, [whole])
    chosen = np.flatnonzero(dealt.round_KI[0] < 30)
    part = pair(list(whole.teacher_I[chosen]), list(whole.student_I[chosen]), 0.25)
    some = anytime.play(dealt, [part], upto=30, chosen=[chosen])
    assert some.student_J == pytest.approx(all_rounds.student_J[:30])
    assert some.weight_J == pytest.approx(all_rounds.weight_J[:30])
