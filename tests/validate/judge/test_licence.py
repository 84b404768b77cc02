import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from limbeck.validate.judge.licence import (
    ALPHA,
    LARGEST_GAP,
    RULES,
    Count,
    Part,
    applies,
    cannot_be_set,
    faults,
    hopeless,
    largest_gap,
)

N = 60
PARTS = list(RULES)


def _planned(**other: int) -> dict[Part, int]:
    """Return enough of every part, but for those named otherwise; `_` stands for a space."""
    return {part: other.get(part.replace(" ", "_").replace("-", "_"), N) for part in RULES}


def _flawless(n: int = N) -> dict[Part, Count]:
    return {part: Count(n if rule.side == "above" else 0, n, n) for part, rule in RULES.items()}


@pytest.mark.parametrize("part", PARTS)
@settings(deadline=None)  # the machine may be busy
@given(data=st.data())
def test_a_rule_agrees_with_the_exact_binomial_test(part: Part, data: st.DataObject) -> None:
    rule = RULES[part]
    n = data.draw(st.integers(1, 80))
    events = data.draw(st.integers(0, n))
    tail = "greater" if rule.side == "above" else "less"
    p_value = binomtest(events, n, rule.limit, alternative=tail).pvalue
    if abs(p_value - ALPHA) > 1e-9:
        assert rule.holds(events, n) == (p_value < ALPHA)


@pytest.mark.parametrize("part", PARTS)
def test_whoever_is_at_the_limit_passes_a_rule_in_at_most_alpha_of_cases(part: Part) -> None:
    rule = RULES[part]
    for n in (9, 24, 40, 80, 400):
        chance = sum(binom.pmf(k, n, rule.limit) for k in range(n + 1) if rule.holds(k, n))
        assert chance <= ALPHA


@pytest.mark.parametrize("part", PARTS)
def test_a_faultless_judge_passes_from_the_smallest_number_on_and_not_before(part: Part) -> None:
    rule = RULES[part]
    n = rule.smallest()
    above = rule.side == "above"
    assert rule.holds(n if above else 0, n)
    assert not rule.holds(n - 1 if above else 0, n - 1)


def _but(part: Part, count: Count) -> dict[Part, Count]:
    counts = _flawless()
    counts[part] = count
    return counts


def _pairs(teacher: Count, student: Count) -> dict[Part, Count]:
    counts = _but("teacher right", teacher)
    counts["student right"] = student
    return counts


def test_a_faultless_judge_has_no_faults() -> None:
    assert faults(_flawless()) == []
    assert not hopeless(_flawless())


@pytest.mark.parametrize("part", PARTS)
def test_each_rule_alone_can_cost_the_licence(part: Part) -> None:
    counts = _but(part, Count(N // 2, N, N))
    found = faults(counts)
    assert found
    assert "30 of 60" in found[0]


def test_no_cases_at_all_are_no_pass() -> None:
    assert not RULES["teacher right"].holds(0, 0)
    assert not RULES["padded twin"].holds(0, 0)


@settings(deadline=None)  # the machine may be busy
@given(
    part=st.sampled_from(PARTS),
    events=st.integers(0, 20),
    asked=st.integers(1, 20),
    seed=st.integers(0, 999),
)
def test_stopping_early_changes_no_result(part: Part, events: int, asked: int, seed: int) -> None:
    events = min(events, asked)
    counts = _but(part, Count(events, asked, N))
    if hopeless(counts):
        rest = int(np.random.default_rng(seed).integers(0, N - asked + 1))
        assert faults(_but(part, Count(events + rest, N, N)))
        assert faults(counts)


def test_a_judge_that_is_fair_on_average_but_favours_one_model_has_a_gap() -> None:
    counts = _pairs(Count(60, 60, 60), Count(47, 60, 60))
    assert all(rule.holds(counts[p].events, 60) for p, rule in RULES.items() if p != "parse")
    found = faults(counts)
    assert len(found) == 1
    assert "differ" in found[0]


@pytest.mark.parametrize("rates", [(0.7, 0.7), (0.9, 0.6), (1.0, 0.7)])
def test_the_bound_of_the_gap_covers_the_true_gap(rates: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    drawn = rng.binomial((40, 25), rates, size=(1000, 2))
    bounds = [largest_gap(_pairs(Count(int(t), 40, 40), Count(int(s), 25, 25))) for t, s in drawn]
    missed = np.mean([b is not None and b < abs(rates[0] - rates[1]) for b in bounds])
    assert missed <= ALPHA


def test_a_family_with_too_little_verified_material_is_told_what_is_missing() -> None:
    planned = _planned(student_right=3)
    reasons = cannot_be_set(planned)
    assert any("3 pairs were won by the student" in r and "6 are needed" in r for r in reasons)
    assert cannot_be_set(_planned()) == []


def test_pairs_that_show_no_gap_even_without_a_fault_are_too_few() -> None:
    reasons = cannot_be_set(_planned(student_right=7))
    assert len(reasons) == 1
    assert "favours neither" in reasons[0]
    assert LARGEST_GAP == 0.3


def test_rungs_that_answers_do_not_allow_are_left_out_but_two_must_be_there() -> None:
    few = _planned(shuffle=0, negate=8)
    assert not applies("shuffle", 0)
    assert applies("off-topic", 0)
    assert cannot_be_set(few) == []
    assert cannot_be_set(_planned(shuffle=0, negate=8, truncate=2)) != []
    assert cannot_be_set(_planned(shuffle=0, negate=8, off_topic=2)) != []
