from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.evidence.checkpoints import POINTS, STEADY, due, nearest


def test_checkpoints_are_fixed_beforehand() -> None:
    assert [n for n in range(300) if due(n) is not None] == list(POINTS)
    assert [due(n) for n in POINTS] == list(range(len(POINTS)))


@settings(deadline=None)  # the machine may be busy
@given(st.integers(POINTS[-1] + 1, 10**7))
def test_beyond_the_last_they_come_at_a_steady_pace(n: int) -> None:
    assert (due(n) is not None) == (n % STEADY == 0)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 10**7))
def test_the_nearest_checkpoint_is_the_last_one_before(n: int) -> None:
    place = nearest(n)
    assert POINTS[place] <= max(n, POINTS[0])
    assert place == len(POINTS) - 1 or n < POINTS[place + 1]
