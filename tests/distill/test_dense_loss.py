"""The closed forms of the dense divergences against autograd through their definitions, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.distill.dense_loss import dense_slopes, logit_gradient
from limbeck.distill.losses import TERMS, softened
from limbeck.distill.objective import Kind, LossSpec

KINDS = list(TERMS)
VOCABULARY = 23


def _logits(seed: int, scale: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = scale * torch.randn(2, 5, VOCABULARY, generator=generator, dtype=torch.float64)
    return both[0].to(dtype), both[1].to(dtype)


def _ours(spec: LossSpec, t_NV: Tensor, z_NV: Tensor) -> tuple[Tensor, Tensor]:
    q_log_NV = softened(z_NV, spec.temperature)
    slopes = dense_slopes(spec, softened(t_NV, spec.temperature), q_log_NV)
    return slopes.value_N, logit_gradient(slopes, q_log_NV, spec.temperature)


def _by_autograd(spec: LossSpec, t_NV: Tensor, z_NV: Tensor) -> tuple[Tensor, Tensor]:
    z_NV = z_NV.clone().requires_grad_()
    terms_NV = TERMS[spec.kind](
        softened(t_NV, spec.temperature), softened(z_NV, spec.temperature), spec
    )
    value_N = terms_NV.sum(-1)
    (gradient_NV,) = torch.autograd.grad(value_N.sum(), z_NV)
    return value_N.detach(), gradient_NV


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**31),
    scale=st.floats(0.01, 12),
    temperature=st.floats(0.3, 4),
    skew=st.floats(0, 0.95),
    beta=st.floats(0.02, 0.98),
)
def test_value_and_gradient_are_those_of_the_definition(
    kind: Kind, seed: int, scale: float, temperature: float, skew: float, beta: float
) -> None:
    spec = LossSpec(kind, temperature=temperature, skew=skew, beta=beta)
    t_NV, z_NV = _logits(seed, scale)
    torch.testing.assert_close(
        _ours(spec, t_NV, z_NV), _by_autograd(spec, t_NV, z_NV), rtol=1e-8, atol=1e-11
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_perfect_student_has_zero_loss_and_zero_gradient(kind: Kind, dtype: torch.dtype) -> None:
    z_NV, _ = _logits(3, 4.0, dtype)
    value_N, gradient_NV = _ours(LossSpec(kind, beta=0.3), z_NV, z_NV.clone())
    bound = 1e-6 if dtype == torch.float32 else 1e-14
    assert value_N.max() <= bound
    assert gradient_NV.abs().max() <= bound


@settings(deadline=None, max_examples=60)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31), scale=st.floats(0.001, 30))
def test_no_divergence_is_ever_below_zero_in_float32(kind: Kind, seed: int, scale: float) -> None:
    t_NV, z_NV = _logits(seed, scale, torch.float32)
    value_N, gradient_NV = _ours(LossSpec(kind), t_NV, z_NV)
    assert (value_N >= 0).all()
    # Shifting all logits of a position alike changes no distribution.
    assert gradient_NV.sum(-1).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_is_certain_of_what_the_teacher_excludes_keeps_everything_finite(
    kind: Kind,
) -> None:
    t_NV = torch.full((1, VOCABULARY), -300.0)
    t_NV[0, 0] = 300.0
    value_N, gradient_NV = _ours(LossSpec(kind), t_NV, t_NV.flip(-1))
    assert value_N.isfinite().all()
    assert gradient_NV.isfinite().all()


def test_the_jensen_shannon_divergence_keeps_its_bound() -> None:
    t_NV, z_NV = _logits(5, 40.0)
    value_N, _ = _ours(LossSpec("jsd"), t_NV, z_NV)
    assert (value_N <= math.log(2) + 1e-12).all()
    assert value_N.max() > 0.6
