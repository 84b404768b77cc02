import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from limbeck.stats.proportion import clopper_pearson, wilson

COUNTS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
CONFIDENCES = st.sampled_from([0.8, 0.95, 0.99])


@given(COUNTS, CONFIDENCES)
def test_the_score_interval_is_that_of_statsmodels(
    counts: tuple[int, int], confidence: float
) -> None:
    found = wilson(*counts, confidence)
    low, high = proportion_confint(*counts, alpha=1 - confidence, method="wilson")
    assert found.low == pytest.approx(low, abs=1e-12)
    assert found.high == pytest.approx(high, abs=1e-12)


@given(COUNTS, CONFIDENCES)
def test_the_exact_interval_is_that_of_statsmodels(
    counts: tuple[int, int], confidence: float
) -> None:
    found = clopper_pearson(*counts, confidence)
    low, high = proportion_confint(*counts, alpha=1 - confidence, method="beta")
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.high == pytest.approx(high, abs=1e-9)


@given(COUNTS)
def test_both_intervals_hold_the_share_and_stay_in_0_and_1(counts: tuple[int, int]) -> None:
    for found in (wilson(*counts), clopper_pearson(*counts)):
        assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("counts", [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(counts: tuple[int, int]) -> None:
    for interval in (wilson, clopper_pearson):
        with pytest.raises(ValueError, match="successes"):
            interval(*counts)


def test_a_confidence_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\), got 1"):
        wilson(1, 2, 1)
