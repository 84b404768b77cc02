"""Likeness is measured, labelled, and kept apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.backends import load
from limbeck.trace.kinship import cosine, kinship, unit_order_p_value

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
PROMPTS = [f"Say {word} twice." for word in WORDS]


def test_weights_with_a_common_ancestor_keep_their_units_in_order():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(64, 32))
    near = base + rng.normal(size=(64, 32))
    assert unit_order_p_value([(base, [near])], seed=1) == pytest.approx(0.001)


@pytest.mark.parametrize("layers", [1, 30])
def test_independent_weights_give_a_uniform_p_value_however_many_layers_are_searched(layers: int):
    rng = np.random.default_rng(0)
    found = [
        unit_order_p_value(
            [(rng.normal(size=(16, 8)), list(rng.normal(size=(layers, 16, 8))))], seed=s
        )
        for s in range(60)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.13)
    assert np.mean(np.array(found) <= 0.1) < 0.25


def test_cosine_is_one_for_a_multiple_and_zero_for_nothing():
    a = np.arange(6.0).reshape(2, 3)
    assert cosine(a, 2 * a) == pytest.approx(1)
    assert cosine(a, 0 * a) == 0


def test_a_model_is_kin_to_itself_and_every_finding_states_its_error_rate(
    tiny_teacher_folder: Path,
):
    model: Any = load(str(tiny_teacher_folder), dtype="float32")
    found = {f.name: f for f in kinship(model, model, PROMPTS)}
    assert found["tokenizer"].value == "the same"
    assert found["weights, cosine"].value.startswith("1.000")
    assert "p = 0.001" in found["weights, order of hidden units"].value
    assert found["activations, CKA"].likeness == pytest.approx(1)
    assert all(f.means and f.error_rate for f in found.values())
    assert all(f.likeness is not None for f in found.values())
