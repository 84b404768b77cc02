import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.signals.ground import PACKED_BYTES, Ground
from tinytraffic import dice

HASH = st.integers(0, 2**64 - 1)
STEP = st.tuples(st.lists(HASH, max_size=4), st.lists(HASH, max_size=4), HASH)


def fresh(ground: Ground, cells: list[int]) -> float:
    ground.remember(cells)
    return ground.step(cells, [], cells[0] ^ 12345).fresh


@settings(deadline=None)  # the machine may be busy
@given(st.lists(STEP, max_size=20))
def test_it_packs_to_a_fixed_size_and_back(steps: list[tuple[list[int], list[int], int]]) -> None:
    ground = Ground()
    for cells, topics, identity in steps:
        covered = ground.step(cells, topics, identity)
        ground.remember(cells)
        assert 0 <= covered.fresh <= 2
        assert 0 <= covered.growth <= 2
        assert 0 <= covered.repeat <= 1
    packed = ground.pack()
    assert len(packed) == PACKED_BYTES
    again = Ground.unpack(packed)
    assert again.pack() == packed
    assert again.distinct() == ground.distinct()


def test_new_ground_is_new_once() -> None:
    ground = Ground()
    first = ground.step([1, 2], [3], 4)
    again = ground.step([1, 2], [3], 4)
    assert (first.fresh, first.repeat) == (1.0, 0.0)
    assert (again.fresh, again.growth, again.repeat) == (0.0, 0.0, 1.0)


def test_a_sweep_stays_fresh_and_a_loop_saturates_however_long() -> None:
    rng = dice(1)
    sweep, loop = Ground(), Ground()
    pool = [[rng.getrandbits(64) for _ in range(4)] for _ in range(50)]
    swept = [fresh(sweep, [rng.getrandbits(64) for _ in range(4)]) for _ in range(4000)]
    looped = [fresh(loop, pool[n % 50]) for n in range(4000)]
    assert sum(swept[-500:]) / 500 == pytest.approx(1.0, abs=0.08)
    assert sum(looped[-500:]) / 500 < 0.02
    assert len(sweep.pack()) == PACKED_BYTES


@pytest.mark.parametrize("count", [10, 100, 10_000])
def test_distinct_cells_are_counted_once_over_the_whole_history(count: int) -> None:
    rng = dice(count)
    cells = [rng.getrandbits(64) >> 4 for _ in range(count)]
    ground = Ground()
    for _ in range(3):
        for cell in cells:
            ground.remember([cell])
    assert ground.distinct() == pytest.approx(count, rel=0.4)
