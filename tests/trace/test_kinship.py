"""Likeness is measured, labelled, and kept apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.backends import load
from limbeck.trace.coins import Pair
from limbeck.trace.kinship import (
    cosine,
    kinship,
    linear_cka,
    overlap,
    text_finding,
    unit_order_p_value,
)


def test_weights_with_a_common_ancestor_keep_their_units_in_order():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(64, 32))
    near = base + rng.normal(size=(64, 32))
    assert unit_order_p_value([(base, near)], seed=1) == pytest.approx(0.001)


def test_independent_weights_give_a_uniform_p_value():
    rng = np.random.default_rng(0)
    found = [
        unit_order_p_value([(rng.normal(size=(16, 8)), rng.normal(size=(16, 8)))], seed=s)
        for s in range(60)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.13)
    assert np.mean(np.array(found) <= 0.1) < 0.25


def test_cka_knows_rotations_and_scales_and_nothing_else():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200, 6))
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert linear_cka(a, 3 * a @ turn + 1) == pytest.approx(1)
    assert linear_cka(a, rng.normal(size=(200, 6))) < 0.2
    assert linear_cka(a, np.zeros((200, 6))) == 0


def test_cosine_is_one_for_a_multiple_and_zero_for_nothing():
    a = np.arange(6.0).reshape(2, 3)
    assert cosine(a, 2 * a) == pytest.approx(1)
    assert cosine(a, 0 * a) == 0


def test_a_model_is_kin_to_itself_and_every_finding_states_its_error_rate(
    tiny_teacher_folder: Path,
):
    model: Any = load(str(tiny_teacher_folder), dtype="float32")
    found = {f.name: f for f in kinship(model, model)}
    assert found["tokenizer"].value == "the same"
    assert found["weights, cosine"].value.startswith("1.000")
    assert "p = 0.001" in found["weights, order of hidden units"].value
    assert all(f.means and f.error_rate for f in found.values())


def test_text_is_compared_with_other_candidates_beside_the_teacher():
    pair = Pair("p", "the mill grinds flour", "a boat on the river")
    found = text_finding([pair], ["the mill grinds corn"], {"other": ["nothing alike at all"]})
    assert found.value == "teacher 0.500; other 0.000"
    assert "none is claimed" in found.error_rate


def test_overlap_is_symmetric_and_one_for_the_same_text():
    assert overlap("a b c", "a b c") == 1
    assert overlap("a b c", "b c d") == overlap("b c d", "a b c")
    assert overlap("", "") == 0
