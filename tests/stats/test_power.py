import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from limbeck.stats.paired import Paired, pair
from limbeck.stats.power import more_items, smallest_loss
from limbeck.stats.retention import Moments, moments, retention


def test_the_number_of_items_is_that_of_a_one_sample_power_analysis() -> None:
    # Differences of mean 0.02 and deviation 0.4 at n = 100: statsmodels says how many are needed in all.
    found = Moments(0.02, 0.0 + 1e-12, 0.4**2 / 100, 0.0, 0.0, 99)
    more = more_items(found, 0.9, 100)
    known = TTestPower().solve_power(effect_size=0.02 / 0.4, alpha=0.05, power=0.8)
    assert more is not None
    assert more + 100 == pytest.approx(known, rel=0.01)


def test_an_effect_of_nothing_needs_no_practical_number() -> None:
    assert more_items(Moments(0.9, 1.0, 0.01, 0.0, 0.0, 99), 0.9, 100) is None


def test_a_settled_question_needs_at_least_one_more() -> None:
    assert more_items(Moments(0.99, 1.0, 1e-9, 0.0, 0.0, 99), 0.9, 100) == 1


def test_the_smallest_loss_is_seen_four_times_out_of_five() -> None:
    rng, n = np.random.default_rng(0), 500
    corners = np.array([(0, 0), (0, 1), (1, 0), (1, 1)], dtype=float)

    def draw(lost: float) -> Paired:
        """Right: teacher 0.9; the student gains 0.05 and loses 0.05 + lost."""
        rows = corners[rng.choice(4, n, p=[0.05, 0.05, 0.05 + lost, 0.85 - lost])]
        return pair(list(rows[:, 0]), list(rows[:, 1]), 0.0)

    losses = [smallest_loss(moments([draw(0)]), n) for _ in range(40)]
    loss = float(np.mean([x for x in losses if x is not None]))
    found = [retention([draw(0.9 * loss)]).high for _ in range(400)]
    seen = sum(high is not None and high < 1 for high in found)
    assert 0.7 <= seen / 400 <= 0.9


def test_a_teacher_at_chance_shows_no_loss_at_all() -> None:
    assert smallest_loss(Moments(0.1, 0.0, 0.01, 0.01, 0.0, 99), 100) is None
