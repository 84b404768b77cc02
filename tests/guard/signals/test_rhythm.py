import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.signals.rhythm import PACKED_BYTES, Rhythm, Shape
from tinytraffic import dice

TIME = st.floats(-1e11, 1e12)


def after(times: list[float]) -> Rhythm:
    rhythm = Rhythm()
    for ts in times:
        rhythm.step(ts)
    return rhythm


@settings(deadline=None)  # the machine may be busy
@given(st.lists(TIME, max_size=40))
def test_no_clock_however_it_jumps_pushes_a_value_out_of_its_range(times: list[float]) -> None:
    rhythm = after(times)
    shape = rhythm.shape()
    assert all(0.0 <= value <= 1.0 + 1e-9 for value in (shape.flat, shape.fast, shape.even))
    packed = rhythm.pack()
    assert len(packed) == PACKED_BYTES
    assert Rhythm.unpack(packed).pack() == packed


def test_a_machine_is_flat_and_even_and_an_office_day_is_not() -> None:
    machine = after([600.0 * n for n in range(1000)]).shape()
    rng = dice(0)
    person = after(
        sorted(86400.0 * rng.randrange(20) + rng.uniform(9, 12) * 3600 for _ in range(300))
    ).shape()
    assert machine.flat > 0.99
    assert machine.even > 0.9
    assert person.flat < 0.5
    assert person.even < machine.even / 2


def test_bursts_are_fast() -> None:
    assert after([0.5 * n for n in range(50)]).shape().fast == 1.0
    assert after([]).shape() == Shape(0.0, 0.0, 0.0)


def test_late_lines_are_gaps_of_nothing() -> None:
    assert after([100.0, 50.0, 60.0]).shape().fast == 1.0


def test_counts_never_overflow() -> None:
    rhythm = after([0.0] * 130_000)
    assert rhythm.shape().fast == pytest.approx(1.0)
