"""CKA knows what it should be blind to, and calls independent activations independent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.backends import load
from limbeck.trace.activations import cka_finding, debiased_cka, layers


def test_cka_knows_rotations_and_scales_and_nothing_else():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200, 6))
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert debiased_cka(a, 3 * a @ turn + 1) == pytest.approx(1)
    assert debiased_cka(a, np.zeros((200, 6))) == 0


def test_independent_activations_that_are_wider_than_the_prompts_are_many_are_not_alike():
    """The plain estimate would be above 0.9 here."""
    rng = np.random.default_rng(0)
    found = [
        debiased_cka(rng.normal(size=(32, 600)), rng.normal(size=(32, 300))) for _ in range(40)
    ]
    assert abs(np.mean(found)) < 0.02
    assert max(map(abs, found)) < 0.2


@pytest.mark.parametrize(("n", "m"), [(3, 3), (8, 7)])
def test_too_few_or_unequal_places_are_refused(n: int, m: int):
    with pytest.raises(ValueError, match="the same places in both, at least 4"):
        debiased_cka(np.ones((n, 2)), np.ones((m, 2)))


def test_activations_are_means_over_a_prompts_tokens_whatever_is_asked_beside_it(
    tiny_teacher_folder: Path,
):
    model: Any = load(str(tiny_teacher_folder), dtype="float32")
    both = layers(model, ["Say one.", "Say two, please."])
    alone = layers(model, ["Say two, please."])
    assert [a.shape for a in both] == [(2, model.model.config.hidden_size)] * 4
    assert np.allclose(both[-1][1], alone[-1][0])


def test_fewer_prompts_than_it_takes_are_said_and_nothing_is_compared(tiny_teacher_folder: Path):
    model: Any = load(str(tiny_teacher_folder), dtype="float32")
    found = cka_finding(model, model, ["Say one."] * 20)
    assert found.value == "not compared"
    assert "1 different prompts are fewer than the 8" in found.means
    assert found.likeness is None
