import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.backends.budget import Budget, Prices, money, units
from limbeck.errors import BudgetError


def test_prices_for_a_million_tokens_are_exact() -> None:
    assert units(Prices.per_million(0.15, 0.6).of(1_000_000, 1_000_000)) == 0.75
    assert Prices.per_million(0.0375, 0.0).of(1, 0) == 37_500


@given(
    limit=st.floats(0, 10),
    requests=st.lists(st.tuples(st.integers(0, 10**13), st.floats(0, 1)), max_size=40),
)
def test_spending_never_passes_the_limit(limit: float, requests: list[tuple[int, float]]) -> None:
    budget = Budget(limit)
    for worst, share in requests:
        try:
            budget.promise(worst)
        except BudgetError:
            continue
        budget.settle(worst, int(worst * share))
        assert units(budget.spent) <= limit + 1e-9


def test_promises_under_way_count() -> None:
    budget = Budget(1.0)
    budget.promise(6 * 10**11)
    with pytest.raises(BudgetError, match=r"could cost 0\.6.*0\.6 under way.*max_cost = 1\.00"):
        budget.promise(6 * 10**11)
    budget.settle(6 * 10**11, 10**11)
    budget.promise(6 * 10**11)
    assert str(budget) == "0.1 of 1.00"


def test_what_was_spent_before_counts() -> None:
    with pytest.raises(BudgetError, match=r"2\.50 spent.*--resume"):
        Budget(3.0, spent=25 * 10**11).promise(10**12)


def test_without_a_limit_everything_passes() -> None:
    budget = Budget(None)
    budget.promise(10**18)
    assert str(budget) == "0.00"


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0.00"), (10**12, "1.00"), (1234 * 10**10, "12.34"), (42 * 10**9, "0.042")],
)
def test_money_shows_small_amounts(amount: int, text: str) -> None:
    assert money(amount) == text
