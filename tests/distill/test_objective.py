"""What a loss specification admits, and which targets support it."""

import math
from typing import Any

import pytest

from limbeck.distill.objective import LossSpec, check_supported
from limbeck.errors import LossError, RecipeError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "kl"),
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("skew", -0.1),
        ("skew", 1.0),
        ("beta", 0.0),
        ("beta", 1.0),
        ("cross_entropy", -0.1),
        ("cross_entropy", 1.1),
    ],
)
def test_a_value_out_of_range_is_refused_by_field_and_value(field: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=rf"loss\.{field} .*{value}"):
        LossSpec(**{field: value})


def test_plain_cross_entropy_takes_no_temperature() -> None:
    with pytest.raises(RecipeError, match=r"loss\.temperature must be 1 .*got 2"):
        LossSpec("cross_entropy", temperature=2.0)


def test_t_squared_multiplies_the_divergence_and_not_the_cross_entropy() -> None:
    spec = LossSpec(temperature=3.0, cross_entropy=0.25)
    assert (spec.divergence_weight, spec.cross_entropy_weight) == (0.75 * 9, 0.25)


def test_plain_cross_entropy_is_all_cross_entropy() -> None:
    spec = LossSpec("cross_entropy", cross_entropy=0.25)
    assert (spec.divergence_weight, spec.cross_entropy_weight) == (0.0, 1.0)
    assert not spec.needs_targets


@pytest.mark.parametrize(
    "kind", ["reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl", "total_variation"]
)
def test_a_divergence_that_needs_the_dense_tail_is_refused_unless_coarse(kind: Any) -> None:
    with pytest.raises(LossError, match=f"{kind} needs the teacher's dense .*coarse_tail = true"):
        check_supported(LossSpec(kind), captured_temperature=1.0)
    check_supported(LossSpec(kind, coarse_tail=True), captured_temperature=1.0)


def test_forward_kl_is_supported_at_the_captured_temperature_only() -> None:
    check_supported(LossSpec(temperature=2.0), captured_temperature=2.0)
    with pytest.raises(LossError, match=r"cannot be re-tempered; capture with temperature = 2\.0"):
        check_supported(LossSpec(temperature=2.0), captured_temperature=1.0)


def test_plain_cross_entropy_is_supported_by_targets_of_any_temperature() -> None:
    check_supported(LossSpec("cross_entropy"), captured_temperature=2.0)
