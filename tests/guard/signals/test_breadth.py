import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.signals.breadth import BUCKETS, PACKED_BYTES, Breadth
from tinytraffic import dice

TOPICS = st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=4), max_size=60)


def after(steps: list[list[int]]) -> Breadth:
    breadth = Breadth()
    for topics in steps:
        breadth.step(topics)
    return breadth


@settings(deadline=None)  # the machine may be busy
@given(TOPICS)
def test_it_stays_in_its_range_and_packs_to_a_fixed_size(steps: list[list[int]]) -> None:
    breadth = after(steps)
    assert 0.0 <= breadth.narrow() <= 1.0
    packed = breadth.pack()
    assert len(packed) == PACKED_BYTES
    assert Breadth.unpack(packed).pack() == packed


@settings(deadline=None)  # the machine may be busy
@given(TOPICS)
def test_pairs_are_counted_as_they_come(steps: list[list[int]]) -> None:
    breadth = after(steps)
    counts = [breadth.count(bucket) for bucket in range(BUCKETS)]
    assert sum(counts) == breadth.total
    assert breadth.pairs == sum(c * (c - 1) // 2 for c in counts)


def test_one_topic_is_narrow_and_all_topics_are_not() -> None:
    rng = dice(0)
    assert after([[5]] * 100).narrow() == pytest.approx(1.0)
    broad = after([[rng.getrandbits(64) for _ in range(4)] for _ in range(5000)])
    assert broad.narrow() < 0.01
