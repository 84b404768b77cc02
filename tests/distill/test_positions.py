from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.distill.packing import Batch
from limbeck.distill.positions import (
    Choice,
    Selection,
    chosen_in_step,
    kept_count,
    most_uncertain,
    narrow,
    objective_notes,
    student_entropies,
)
from limbeck.distill.recipe import TrainRecipe
from limbeck.distill.targets import SparseTargets, select
from limbeck.distill.torch_targets import TorchTargets
from limbeck.errors import RecipeError

FRACTIONS = st.floats(0.001, 1.0)
ENTROPIES = st.lists(st.integers(0, 5).map(float), min_size=0, max_size=40)


def _rows(entropies: list[float], cuts: list[int]) -> list[np.ndarray[Any, Any]]:
    ends = sorted({min(c, len(entropies)) for c in cuts} | {0, len(entropies)})
    whole = np.asarray(entropies, dtype=np.float32)
    return [whole[a:b] for a, b in pairwise(ends)] or [whole]


@given(positions=st.integers(0, 500), fraction=FRACTIONS)
def test_the_kept_number_is_the_nearest_to_the_fraction_and_never_none_of_some(
    positions: int, fraction: float
) -> None:
    kept = kept_count(positions, fraction)
    assert (kept >= 1) == (positions > 0)
    assert kept <= positions
    assert kept <= 1 or abs(kept - fraction * positions) <= 0.5
    assert kept_count(positions, 1.0) == positions


@given(entropies=ENTROPIES, fraction=FRACTIONS)
def test_no_position_left_out_is_more_uncertain_than_a_kept_one_and_equals_go_by_order(
    entropies: list[float], fraction: float
) -> None:
    values_N = np.asarray(entropies)
    kept = most_uncertain(values_N, fraction).tolist()
    assert kept == sorted(set(kept))
    ranked = sorted(range(len(entropies)), key=lambda n: (-entropies[n], n))
    assert set(kept) == set(ranked[: len(kept)])
    assert len(kept) == kept_count(len(entropies), fraction)


def test_what_is_not_a_number_is_kept_so_that_the_loss_meets_it() -> None:
    assert most_uncertain(np.asarray([1.0, 9.0, np.nan, 2.0]), 0.25).tolist() == [2]


@settings(deadline=None)
@given(
    entropies=ENTROPIES.filter(bool),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    others=st.lists(st.integers(0, 40), max_size=5),
    fraction=FRACTIONS,
    choice=st.sampled_from(["teacher_entropy", "random"]),
)
def test_a_step_keeps_the_same_positions_however_they_lie_in_rows(
    entropies: list[float], cuts: list[int], others: list[int], fraction: float, choice: Choice
) -> None:
    selection = Selection(fraction, choice)
    one = chosen_in_step(selection, _rows(entropies, cuts), seed=1, step=2)
    two = chosen_in_step(selection, _rows(entropies, others), seed=1, step=2)
    assert [len(mask) for mask in one] == [len(row) for row in _rows(entropies, cuts)]
    assert np.concatenate(one).tolist() == np.concatenate(two).tolist()
    assert np.concatenate(one).sum() == kept_count(len(entropies), fraction)


def test_a_random_choice_is_another_at_every_step_and_seed() -> None:
    rows = [np.zeros(64, np.float32)]
    drawn = {
        (seed, step): chosen_in_step(Selection(0.5, "random"), rows, seed=seed, step=step)[0]
        for seed in (0, 1)
        for step in (1, 2)
    }
    assert len({mask.tobytes() for mask in drawn.values()}) == 4


def test_where_the_student_chooses_nothing_is_left_out_before_it_is_asked() -> None:
    masks = chosen_in_step(
        Selection(0.2, "student_entropy"), [np.arange(5, dtype=np.float32)], seed=0, step=1
    )
    assert masks[0].all()
    assert Selection(0.2, "student_entropy").student_fraction == 0.2
    assert Selection(0.2, "teacher_entropy").student_fraction == 1


@settings(deadline=None)  # torch warms up in the first example
@given(tile=st.integers(1, 9), scale=st.floats(0.01, 30))
def test_tiled_entropies_are_those_of_the_whole_softmax(tile: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden_ND = torch.randn(7, 4, generator=generator) * scale
    weight_VD = torch.randn(50, 4, generator=generator)
    expected_N = torch.special.entr((hidden_ND @ weight_VD.T).double().softmax(-1)).sum(-1)
    found_N = student_entropies(hidden_ND, weight_VD, tile=tile)
    torch.testing.assert_close(found_N.double(), expected_N, rtol=1e-4, atol=1e-4)


def test_equal_logits_have_the_largest_entropy_and_no_position_has_none() -> None:
    weight_VD = torch.ones(50, 4)
    assert student_entropies(torch.ones(1, 4), weight_VD)[0] == pytest.approx(np.log(50))
    assert student_entropies(torch.ones(0, 4), weight_VD).shape == (0,)


def _targets() -> SparseTargets:
    return SparseTargets(
        offsets_N1=np.asarray([0, 2, 2, 5, 6]),
        ids_E=np.asarray([4, 7, 1, 2, 9, 3], np.int32),
        weights_E=np.asarray([0.5, 0.25, 0.4, 0.3, 0.3, 1.0], np.float32),
        is_head_E=np.asarray([1, 0, 1, 0, 0, 0], np.bool_),
        tail_N=np.asarray([0.5, 1.0, 0.6, 1.0], np.float32),
        entropy_N=np.asarray([1.0, 2.0, 3.0, 4.0], np.float32),
    )


@settings(deadline=None)
@given(mask=st.lists(st.booleans(), min_size=4, max_size=4))
def test_narrowed_targets_are_those_of_the_kept_positions(mask: list[bool]) -> None:
    kept = np.flatnonzero(mask)
    batch = Batch(
        tokens_BT=torch.arange(6)[None],
        positions_BT=torch.arange(6)[None],
        segments_BT=torch.ones(1, 6, dtype=torch.int64),
        loss_N=torch.tensor([0, 2, 3, 4]),
        next_N=torch.tensor([1, 3, 4, 5]),
        documents=(0,),
    )
    narrowed, targets = narrow(batch, TorchTargets.from_numpy(_targets()), torch.from_numpy(kept))
    assert targets is not None
    expected = TorchTargets.from_numpy(select(_targets(), kept))
    for name in TorchTargets.__slots__:
        one, two = getattr(targets, name), getattr(expected, name)
        assert one is two or one.tolist() == two.tolist(), name
    assert narrowed.loss_N.tolist() == [batch.loss_N.tolist()[n] for n in kept]
    assert narrowed.next_N.tolist() == [n + 1 for n in narrowed.loss_N.tolist()]
    assert narrowed.tokens_BT is batch.tokens_BT
    assert narrow(batch, None, torch.from_numpy(kept))[1] is None


def test_the_recipe_knows_the_same_choices() -> None:
    assert get_args(TrainRecipe.model_fields["position_choice"].annotation) == get_args(Choice)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan")])
def test_a_fraction_out_of_its_range_is_named(fraction: float) -> None:
    with pytest.raises(RecipeError, match=r"train\.positions must be above 0 and at most 1"):
        Selection(fraction)


def test_a_changed_objective_is_told_and_an_unchanged_one_is_not() -> None:
    assert objective_notes(Selection(1.0, "random"), control=True) == ()
    for choice in get_args(Choice):
        changed, control = objective_notes(Selection(0.2, choice), control=True)
        assert "objective was changed" in changed
        assert "0.2" in changed
        assert choice in changed
        assert ("same positions as the student" in control) == (choice != "student_entropy")
        assert objective_notes(Selection(0.2, choice), control=False) == (changed,)
