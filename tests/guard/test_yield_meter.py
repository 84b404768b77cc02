import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.yield_meter import PACKED_BYTES, Meter

STEPS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 5000)), max_size=30)


@settings(deadline=None)  # the machine may be busy
@given(STEPS)
def test_yield_never_falls_and_survives_packing(steps: list[tuple[float, float]]) -> None:
    meter, last = Meter(), 0.0
    for fresh, tokens in steps:
        meter.step(fresh, tokens)
        assert meter.spent(800, 800_000) >= last
        last = meter.spent(800, 800_000)
    packed = meter.pack()
    assert len(packed) == PACKED_BYTES
    assert Meter.unpack(packed).pack() == packed


def test_800_novel_answers_use_the_budget_up_and_repeats_or_refusals_nothing() -> None:
    meter = Meter()
    for _ in range(800):
        meter.step(1.0, 100.0)
        meter.step(0.0, 100.0)
        meter.step(1.0, 0.0)
    assert meter.spent(800, 800_000) == pytest.approx(1.0)
