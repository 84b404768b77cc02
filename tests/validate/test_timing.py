import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import ScoringError
from limbeck.validate.ledger import VerifiedOutcome
from limbeck.validate.respond import Asked
from limbeck.validate.timing import (
    FEWEST_BLOCKS,
    Price,
    Timing,
    Usage,
    measure_timing,
    median_ratio,
)

PROMPTS = [Asked(f"t/{i}", f"prompt {i}", "chat") for i in range(5)]


@dataclass
class Clock:
    """Time that passes when a writer says so."""

    now: float = 0.0
    turns: list[str] = field(default_factory=list[str])

    def __call__(self) -> float:
        return self.now


@dataclass
class Scripted:
    """Writes as fast as it is told, on a machine that may slow down."""

    name: str
    clock: Clock
    first: float
    token: float
    tokens: int = 10
    slowing: Callable[[float], float] = lambda _: 1.0

    def write(self, asked: Asked, piece: Callable[[], None]) -> Usage:
        self.clock.turns.append(f"{self.name}:{asked.item}")
        for place in range(self.tokens):
            step = self.first if place == 0 else self.token
            self.clock.now += step * self.slowing(self.clock.now)
            piece()
        return Usage(7, self.tokens)


def _outcomes(teacher: float, student: float, n: int = 400) -> list[VerifiedOutcome]:
    return [
        VerifiedOutcome(f"{i}", f"{i}", float(i < teacher * n), float(i < student * n))
        for i in range(n)
    ]


def _timing(
    blocks: int = FEWEST_BLOCKS, slowing: Callable[[float], float] = lambda _: 1.0, **more: Any
) -> Timing:
    clock = Clock()
    teacher = Scripted("teacher", clock, 0.4, 0.1, slowing=slowing)
    student = Scripted("student", clock, 0.1, 0.025, slowing=slowing)
    return measure_timing(PROMPTS, teacher, student, blocks=blocks, clock=clock, **more)


def test_known_delays_give_known_figures() -> None:
    timing = _timing(outcomes=_outcomes(0.8, 0.6))
    assert timing.speed_ratio == pytest.approx((4, 4, 4))
    assert timing.first_ratio == pytest.approx((0.25, 0.25, 0.25))
    assert timing.seconds_ratio == pytest.approx((0.25, 0.25, 0.25))
    assert timing.teacher.first_s == pytest.approx(0.4)
    assert timing.teacher.tokens_per_s == pytest.approx(10 / 1.3)
    assert timing.teacher.seconds_per_answer[0] == pytest.approx(1.3)
    assert timing.teacher.tokens == 2 * FEWEST_BLOCKS * 10
    assert timing.cost_ratio is not None
    assert timing.cost_ratio[0] == pytest.approx(0.25 * 0.8 / 0.6)
    assert timing.student.seconds_per_accepted is not None
    assert timing.student.seconds_per_accepted[0] == pytest.approx(0.325 / 0.6)
    assert timing.student.cost_per_accepted is None


def test_models_take_turns_in_blocks_that_mirror_themselves() -> None:
    clock = Clock()
    models = [Scripted(name, clock, 0.1, 0.1) for name in ("T", "S")]
    measure_timing(PROMPTS, models[0], models[1], blocks=6, clock=clock)
    warm_up, turns = clock.turns[:2], clock.turns[2:]
    assert warm_up == ["T:t/0", "S:t/0"]
    assert turns[:8] == ["T:t/0", "S:t/0", "S:t/1", "T:t/1", "S:t/2", "T:t/2", "T:t/3", "S:t/3"]
    assert [turn[2:] for turn in turns[::4]] == ["t/0", "t/2", "t/4", "t/1", "t/3", "t/0"]
    assert sorted(t[2:] for t in turns if t[0] == "T") == sorted(
        t[2:] for t in turns if t[0] == "S"
    )


def test_a_machine_that_slows_down_steadily_favours_neither() -> None:
    even = _timing(blocks=20, slowing=lambda now: 1 + now / 30)
    assert even.speed_ratio[0] == pytest.approx(4, rel=0.03)
    in_a_row = np.linspace(1, 2, 41)  # all answers of the teacher first would be wrong by a half
    assert in_a_row[20:].mean() / in_a_row[:20].mean() > 1.3


def test_one_hiccup_moves_no_ratio_of_speed_but_is_on_the_bill() -> None:
    calm = _timing(blocks=8, outcomes=_outcomes(0.8, 0.8))
    hiccups = iter([True])
    rough = _timing(
        blocks=8,
        outcomes=_outcomes(0.8, 0.8),
        slowing=lambda now: 60.0 if now > 5 and next(hiccups, False) else 1.0,
    )
    assert rough.speed_ratio[0] == pytest.approx(calm.speed_ratio[0])
    assert rough.cost_ratio is not None
    assert calm.cost_ratio is not None
    assert abs(math.log(rough.cost_ratio[0] / calm.cost_ratio[0])) > 0.1
    assert rough.cost_ratio[1] < calm.cost_ratio[0] < rough.cost_ratio[2]


def test_prices_count_prompts_answers_and_seconds() -> None:
    price = Price(prompt_token=10, written_token=40, second=100)
    assert price.of(Usage(7, 10), 1.3) == pytest.approx(7 * 10 + 10 * 40 + 130)
    timing = _timing(
        outcomes=_outcomes(0.5, 0.5), teacher_price=price, student_price=Price(written_token=4)
    )
    assert timing.cost_ratio is not None
    assert timing.cost_ratio[0] == pytest.approx(40 / 600)
    assert timing.teacher.cost_per_accepted is not None
    assert timing.teacher.cost_per_accepted[0] == pytest.approx(600 / 0.5)
    assert timing.cost_basis == "prices"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, "fewer than two clusters"),
        ({"outcomes": _outcomes(0.8, 0.0)}, "no answer of the student was accepted"),
        ({"outcomes": _outcomes(0.0, 0.8)}, "no answer of the teacher was accepted"),
        (
            {
                "outcomes": _outcomes(0.5, 0.5),
                "teacher_price": Price(second=1),
                "student_price": Price(),
            },
            "the student is given a price of 0",
        ),
    ],
    ids=["unverified", "student", "teacher", "free"],
)
def test_a_cost_that_is_not_known_has_a_reason(more: dict[str, Any], reason: str) -> None:
    timing = _timing(**more)
    assert timing.cost_ratio is None
    assert timing.cost_reason is not None
    assert reason in timing.cost_reason
    json.dumps(timing.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": FEWEST_BLOCKS - 1}, "6 blocks at least, got 5 and 5"),
        ({"teacher_price": Price()}, "both models or for none"),
    ],
    ids=["blocks", "price"],
)
def test_timing_that_would_show_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        _timing(**change)


def test_a_model_that_writes_nothing_is_refused() -> None:
    clock = Clock()
    with pytest.raises(ScoringError, match="the student mute wrote nothing"):
        measure_timing(
            PROMPTS,
            Scripted("t", clock, 1, 1),
            Scripted("mute", clock, 1, 1, tokens=0),
            clock=clock,
        )


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=30))
def test_the_median_lies_in_its_interval_and_turns_over_with_the_models(
    ratios: list[float],
) -> None:
    over_B, one_B = np.array(ratios), np.ones(len(ratios))
    point, low, high = median_ratio(over_B, one_B, 0.95)
    assert min(ratios) <= low <= point <= high <= max(ratios)
    turned = median_ratio(one_B, over_B, 0.95)
    assert turned[1:] == pytest.approx((1 / high, 1 / low))


@pytest.mark.parametrize(
    ("blocks", "ends"), [(6, (0, 5)), (9, (1, 7)), (20, (5, 14)), (30, (9, 20))]
)
def test_order_statistics_are_those_of_the_published_table(
    blocks: int, ends: tuple[int, int]
) -> None:
    # Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2: ranks 1-6, 2-8, 6-15 and 10-21 at 95%.
    ratio = np.arange(1.0, blocks + 1)
    _, low, high = median_ratio(ratio, np.ones(blocks), 0.95)
    assert (low, high) == (ratio[ends[0]], ratio[ends[1]])


@pytest.mark.parametrize("blocks", [6, 20])
def test_the_interval_of_the_median_covers_it_whatever_the_noise(blocks: int) -> None:
    rng = np.random.default_rng(0)
    draws = np.exp(np.clip(rng.standard_cauchy((2000, blocks)), -99, 99))
    covered = 0
    for row in draws:
        _, low, high = median_ratio(row, np.ones(blocks), 0.95)
        covered += low <= 1 <= high
    assert covered / 2000 >= 0.94


def test_the_interval_of_the_bill_covers_the_true_ratio() -> None:
    rng = np.random.default_rng(1)
    covered, runs, n = 0, 300, 300
    for _ in range(runs):
        clock = Clock()
        noise = rng.lognormal(0, 0.2, size=4000)
        draws = iter((noise / math.exp(0.02)).tolist())

        def slowing(_: float, draws: Iterator[float] = draws) -> float:
            return next(draws)

        teacher = Scripted("t", clock, 0.4, 0.4, tokens=2, slowing=slowing)
        student = Scripted("s", clock, 0.1, 0.1, tokens=2, slowing=slowing)
        scores = rng.random((n, 2)) < (0.8, 0.6)
        outcomes = [
            VerifiedOutcome(f"{i}", f"{i}", float(t), float(s)) for i, (t, s) in enumerate(scores)
        ]
        found = measure_timing(
            PROMPTS, teacher, student, blocks=12, clock=clock, outcomes=outcomes
        ).cost_ratio
        assert found is not None
        covered += found[1] <= 0.25 * 0.8 / 0.6 <= found[2]
    assert 0.92 <= covered / runs <= 0.98
