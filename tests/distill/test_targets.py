"""Joining and selecting sparse targets."""

import numpy as np
import pytest

from limbeck.distill.targets import SparseTargets, concatenate, select


def targets(seed: int, counts: list[int]) -> SparseTargets:
    generator = np.random.default_rng(seed)
    entries = sum(counts)
    return SparseTargets(
        offsets_N1=np.cumsum([0, *counts]).astype(np.int64),
        ids_E=generator.integers(0, 99, entries).astype(np.int32),
        weights_E=generator.random(entries, dtype=np.float32),
        is_head_E=generator.random(entries) < 0.5,
        tail_N=generator.random(len(counts), dtype=np.float32),
        entropy_N=generator.random(len(counts), dtype=np.float32),
    )


def position(targets: SparseTargets, n: int) -> tuple[list[float], ...]:
    entries = slice(targets.offsets_N1[n], targets.offsets_N1[n + 1])
    return (
        targets.ids_E[entries].tolist(),
        targets.weights_E[entries].tolist(),
        targets.is_head_E[entries].tolist(),
        [float(targets.tail_N[n]), float(targets.entropy_N[n])],
    )


def test_selected_positions_keep_all_they_hold_in_the_order_asked_for() -> None:
    whole = targets(0, [3, 0, 2, 5])
    chosen = select(whole, np.array([3, 1, 0, 3, -2]))
    assert [position(chosen, n) for n in range(5)] == [position(whole, n) for n in (3, 1, 0, 3, 2)]


def test_selecting_nothing_leaves_no_positions() -> None:
    chosen = select(targets(1, [2, 2]), np.zeros(0, dtype=np.int64))
    assert (len(chosen), len(chosen.ids_E), chosen.offsets_N1.tolist()) == (0, 0, [0])


def test_a_position_that_does_not_exist_cannot_be_selected() -> None:
    with pytest.raises(IndexError):
        select(targets(2, [2, 2]), np.array([2]))


def test_joined_targets_hold_every_part_in_order() -> None:
    parts = [targets(3, [1, 4]), targets(4, []), targets(5, [0, 2])]
    joined = concatenate(parts)
    assert [position(joined, n) for n in range(len(joined))] == [
        position(part, n) for part in parts for n in range(len(part))
    ]


def test_joining_then_selecting_gives_a_part_back() -> None:
    parts = [targets(6, [1, 4, 2]), targets(7, [3, 2])]
    back = select(concatenate(parts), np.array([3, 4]))
    assert [position(back, n) for n in range(2)] == [position(parts[1], n) for n in range(2)]


def test_joining_no_parts_makes_targets_of_no_positions() -> None:
    nothing = concatenate([])
    assert (len(nothing), nothing.offsets_N1.tolist()) == (0, [0])
    assert (nothing.ids_E.dtype, nothing.is_head_E.dtype) == (np.int32, np.bool_)
