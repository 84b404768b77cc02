import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.trace.audit import RIDGE, Item, leans_of
from limbeck.trace.leans import RIDGE as SECOND_RIDGE
from limbeck.trace.leans import leans, solve

LOGS = st.floats(-300, 0)


@given(st.integers(0, 4).flatmap(lambda k: st.lists(st.lists(LOGS, min_size=2 * k + 2, max_size=2 * k + 2), min_size=1, max_size=25)), st.sampled_from(["fitted", "one"]))  # fmt: skip
def test_it_is_what_the_audit_computes(rows: list[list[float]], weights: str) -> None:
    items = [Item("", "", 0, (r[0], r[1]), tuple(zip(r[2::2], r[3::2], strict=True))) for r in rows]
    suspect = [r[1] - r[0] for r in rows]
    references = [[b - a for a, b in zip(r[2::2], r[3::2], strict=True)] for r in rows]
    assert weights in {"fitted", "one"}
    expected = leans_of(items, "one" if weights == "one" else "fitted")
    assert leans(suspect, references, weights) == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_both_copies_use_the_same_ridge() -> None:
    assert SECOND_RIDGE == RIDGE


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_system_is_solved(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(size, size)) + 4 * np.eye(size)
    right = rng.normal(size=size)
    assert solve(left.tolist(), right.tolist()) == pytest.approx(
        np.linalg.solve(left, right), rel=1e-6, abs=1e-8
    )


def test_a_later_coin_changes_no_earlier_d() -> None:
    suspect, references = [1.0, -2.0, 3.0], [[0.5, 1.0], [-1.0, 0.2], [2.0, -4.0]]
    assert leans(suspect, references, "fitted")[:2] == leans(suspect[:2], references[:2], "fitted")
