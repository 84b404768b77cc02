"""The tiled loss through both heads against dense autograd in float64, and what it holds in memory."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.distill import fused_dense
from limbeck.distill.fused_dense import TeacherStates, fused_dense_loss
from limbeck.distill.losses import TERMS, objective, softened
from limbeck.distill.objective import LossSpec
from limbeck.errors import LossError, TokenizerMismatchError

VOCABULARY, WIDTH, TEACHER_WIDTH = 37, 8, 11
SPECS = [
    *(LossSpec(kind, beta=0.3) for kind in TERMS),
    *(LossSpec(kind, temperature=1.7, skew=0.3) for kind in TERMS),
]
every_spec = pytest.mark.parametrize("spec", SPECS, ids=str)


@dataclass(frozen=True, slots=True)
class Batch:
    """A student's states and head, and a teacher of another width."""

    hidden_ND: Tensor
    weight_VD: Tensor
    teacher: TeacherStates


def _batch(seed: int, positions: int, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return Batch(
        normal(positions, WIDTH).requires_grad_(),
        normal(VOCABULARY, WIDTH).requires_grad_(),
        TeacherStates(normal(positions, TEACHER_WIDTH), normal(VOCABULARY, TEACHER_WIDTH)),
    )


def _fused(batch: Batch, spec: LossSpec, positions: int, tile: int | None = 4) -> Tensor:
    return fused_dense_loss(
        batch.hidden_ND, batch.weight_VD, batch.teacher, spec, positions, tile=tile
    )


def _dense(batch: Batch, spec: LossSpec, positions: int) -> Tensor:
    """Return the loss from whole matrices of logits, as `losses` defines it."""
    teacher = batch.teacher
    t_NV = teacher.hidden_ND.double() @ teacher.weight_VD.double().T
    z_NV = batch.hidden_ND.double() @ batch.weight_VD.double().T
    return objective(spec, softened(t_NV, spec.temperature), z_NV, None).sum() / positions


def _gradients(loss: Tensor, batch: Batch) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, (batch.hidden_ND, batch.weight_VD))


@every_spec
@pytest.mark.parametrize("tile", [1, 5, None])
def test_value_and_gradient_equal_dense_autograd_in_float64(
    spec: LossSpec, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_dense, "_BLOCK_BYTES", 2 * 8 * VOCABULARY)  # two positions a piece
    batch = _batch(0, 13)
    ours, theirs = _fused(batch, spec, 20, tile), _dense(batch, spec, 20)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(
        _gradients(ours, batch), _gradients(theirs, batch), rtol=1e-9, atol=1e-12
    )


@every_spec
def test_under_bfloat16_autocast_the_gradient_is_float32_and_close(spec: LossSpec) -> None:
    batch = _batch(1, 13, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = _fused(batch, spec, 13)
    theirs = _dense(batch, spec, 13)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs.float(), rtol=0.02, atol=0.02)
    for mine, exact in zip(_gradients(ours, batch), _gradients(theirs, batch), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - exact).norm() < 0.04 * exact.norm()


def test_a_teacher_in_bfloat16_teaches_a_student_in_float32() -> None:
    batch = _batch(2, 9, torch.float32)
    states = batch.teacher
    half = TeacherStates(states.hidden_ND.bfloat16(), states.weight_VD.bfloat16())
    ours = _fused(replace(batch, teacher=half), LossSpec("reverse_kl"), 9)
    torch.testing.assert_close(
        ours, _dense(batch, LossSpec("reverse_kl"), 9).float(), rtol=0.02, atol=0.02
    )


@pytest.mark.parametrize("kind", ["reverse_kl", "jsd"])
def test_neither_the_split_into_micro_batches_nor_their_order_changes_the_step(kind: Any) -> None:
    batch, spec = _batch(3, 12), LossSpec(kind)
    whole = _fused(batch, spec, 12)

    def part(where: list[int]) -> Tensor:
        states = TeacherStates(batch.teacher.hidden_ND[where], batch.teacher.weight_VD)
        return _fused(Batch(batch.hidden_ND[where], batch.weight_VD, states), spec, 12)

    split = part([11, 3, 4]) + part([0, 1, 2, 5, 6, 7, 8, 10]) + part([9])
    torch.testing.assert_close(split, whole, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        _gradients(split, batch), _gradients(whole, batch), rtol=1e-11, atol=1e-13
    )


def test_a_micro_batch_without_loss_positions_adds_nothing() -> None:
    batch = _batch(4, 0)
    loss = _fused(batch, LossSpec("reverse_kl"), 5)
    assert loss.item() == 0
    assert all(not g.any() for g in _gradients(loss, batch))


def test_a_token_that_the_teacher_masks_costs_what_its_definition_says() -> None:
    masked_V = torch.tensor([1.0, 0.0, -torch.inf, 2.0])
    teacher = TeacherStates(torch.ones(1, 1), masked_V[:, None])
    for kind in TERMS:
        z_NV = torch.zeros(1, 4, requires_grad=True)
        loss = fused_dense_loss(z_NV, torch.eye(4), teacher, LossSpec(kind), 1)
        (gradient_NV,) = torch.autograd.grad(loss, z_NV)
        exact = objective(LossSpec(kind), softened(masked_V[None], 1.0), z_NV, None).sum()
        torch.testing.assert_close(loss, exact, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient_NV, torch.autograd.grad(exact, z_NV)[0])


class _Sizes(TorchDispatchMode):
    """Records the number of elements of every result."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result


@every_spec
@pytest.mark.parametrize("autocast", [False, True])
def test_no_tensor_as_large_as_positions_times_vocabulary_ever_exists(
    spec: LossSpec, autocast: bool
) -> None:
    positions, tile = 96, 8
    batch = _batch(5, positions, torch.float32)
    with _Sizes() as sizes, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        _fused(batch, spec, positions, tile).backward()
    allowed = max(tile * VOCABULARY, positions * TEACHER_WIDTH, VOCABULARY * TEACHER_WIDTH)
    assert sizes.largest <= allowed < positions * VOCABULARY
    with _Sizes() as dense:
        _dense(batch, spec, positions)
    assert dense.largest >= positions * VOCABULARY


def test_a_frozen_head_costs_no_gradient_and_the_teacher_gets_none() -> None:
    batch = _batch(6, 7)
    frozen = replace(batch, weight_VD=batch.weight_VD.detach())
    (by_hidden,) = torch.autograd.grad(_fused(frozen, LossSpec("jsd"), 7), frozen.hidden_ND)
    torch.testing.assert_close(by_hidden, _gradients(_fused(batch, LossSpec("jsd"), 7), batch)[0])
    states = TeacherStates(
        batch.teacher.hidden_ND.clone().requires_grad_(), batch.teacher.weight_VD
    )
    _fused(replace(batch, teacher=states), LossSpec("jsd"), 7).backward()
    assert states.hidden_ND.grad is None


def test_inputs_that_do_not_fit_are_named() -> None:
    batch = _batch(7, 5)
    states = batch.teacher
    with pytest.raises(LossError, match="reads no realised tokens; got kind = cross_entropy"):
        _fused(batch, LossSpec("cross_entropy"), 5)
    with pytest.raises(LossError, match=r"share 0\.2 of cross-entropy"):
        _fused(batch, LossSpec("jsd", cross_entropy=0.2), 5)
    short = TeacherStates(states.hidden_ND[:4], states.weight_VD)
    with pytest.raises(LossError, match="cover 4 positions and the student's 5"):
        _fused(replace(batch, teacher=short), LossSpec("jsd"), 5)
    trimmed = TeacherStates(states.hidden_ND, states.weight_VD[:36])
    with pytest.raises(TokenizerMismatchError, match="knows 36 tokens and the student's 37"):
        _fused(replace(batch, teacher=trimmed), LossSpec("jsd"), 5)
    with pytest.raises(LossError, match="at least 1, got 0"):
        _fused(batch, LossSpec("jsd"), 0)
