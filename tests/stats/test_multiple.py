import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from limbeck.stats.multiple import benjamini_hochberg, e_benjamini_hochberg, holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@given(P_VALUES)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


@given(P_VALUES)
def test_benjamini_hochberg_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert benjamini_hochberg(p_values) == pytest.approx(
        multipletests(p_values, method="fdr_bh")[1]
    )


@given(P_VALUES)
def test_adjusting_makes_no_p_value_smaller_and_keeps_their_order(p_values: list[float]) -> None:
    for adjusted in (holm(p_values), benjamini_hochberg(p_values)):
        assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
        order = np.argsort(p_values, kind="stable")
        assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_the_largest_e_values_are_found_at_the_published_thresholds() -> None:
    # m / (alpha k) at m = 4 and alpha = 0.1 is 40, 20, 13.3, 10.
    assert e_benjamini_hochberg([39, 25, 14, 1], 0.1) == [True, True, True, False]
    assert e_benjamini_hochberg([39, 19, 13, 9], 0.1) == [False] * 4
    assert e_benjamini_hochberg([], 0.1) == []


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=20), st.sampled_from([0.05, 0.2]))
def test_e_values_reject_as_their_inverses_do_under_benjamini_hochberg(
    p_values: list[float], alpha: float
) -> None:
    e_values = [1 / p for p in p_values]
    found = e_benjamini_hochberg(e_values, alpha)
    rejected = [p <= alpha * (1 - 1e-12) for p in benjamini_hochberg(p_values)]
    near = any(abs(p - alpha) < 1e-9 for p in benjamini_hochberg(p_values))
    assert near or found == rejected


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="p-values"):
        holm([1.2])
    with pytest.raises(ValueError, match="e-values"):
        e_benjamini_hochberg([-1.0], 0.05)
    with pytest.raises(ValueError, match="alpha"):
        e_benjamini_hochberg([1.0], 0)
