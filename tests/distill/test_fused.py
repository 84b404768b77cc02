"""The fused loss against its definition in float64, and the laws of sparse targets through it."""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.distill.fused import fused_sparse_loss
from limbeck.distill.losses import TERMS, forward_kl
from limbeck.distill.objective import Kind, LossSpec
from limbeck.distill.targets import SparseTargets, concatenate, select
from limbeck.distill.torch_targets import TorchTargets
from limbeck.errors import LossError

VOCABULARY = 37
WIDTH = 8
COARSE_KINDS = list(TERMS)
SPECS = [
    LossSpec(),
    LossSpec(cross_entropy=0.3),
    LossSpec(temperature=2.0),
    LossSpec(temperature=2.0, cross_entropy=0.3),
    LossSpec(cross_entropy=1.0),
    LossSpec("cross_entropy"),
    *(LossSpec(kind, beta=0.3, coarse_tail=True) for kind in COARSE_KINDS),
    *(LossSpec(k, temperature=1.5, cross_entropy=0.4, coarse_tail=True) for k in COARSE_KINDS),
]
every_spec = pytest.mark.parametrize("spec", SPECS, ids=str)


@dataclass(frozen=True, slots=True)
class Batch:
    """Hidden states, head, and what came next."""

    hidden_ND: Tensor
    weight_VD: Tensor
    next_ids_N: Tensor


def make_batch(seed: int, positions: int, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = torch.randn(positions, WIDTH, generator=generator, dtype=torch.float64)
    weight_VD = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64)
    return Batch(
        hidden_ND.to(dtype).requires_grad_(),
        weight_VD.to(dtype).requires_grad_(),
        torch.randint(VOCABULARY, (positions,), generator=generator),
    )


def sparse(
    p_V: np.ndarray, head: int, samples: int, generator: np.random.Generator
) -> SparseTargets:
    """Keep the `head` likeliest tokens, and draw `samples` from the rest in proportion to p."""
    order = np.argsort(-p_V)
    kept, rest = order[:head], order[head:]
    tail = float(p_V[rest].sum())
    drawn = generator.choice(rest, samples, p=p_V[rest] / tail) if samples else rest[:0]
    weights = np.concatenate([p_V[kept], np.full(samples, tail / max(samples, 1))])
    return SparseTargets(
        offsets_N1=np.array([0, head + samples], dtype=np.int64),
        ids_E=np.concatenate([kept, drawn]).astype(np.int32),
        weights_E=weights.astype(np.float32),
        is_head_E=np.arange(head + samples) < head,
        tail_N=np.array([tail], dtype=np.float32),
        entropy_N=np.array([-(p_V * np.log(p_V)).sum()], dtype=np.float32),
    )


def make_targets(seed: int, positions: int, scale: float = 2.0) -> SparseTargets:
    """Return positions with and without samples, with no head, and one that is all head."""
    generator = np.random.default_rng(seed)
    shapes = [(3, 4), (2, 0), (0, 5), (VOCABULARY, 0), (1, 1), (0, 0)]
    parts: list[SparseTargets] = []
    for n in range(positions):
        z_V = torch.from_numpy(scale * generator.standard_normal(VOCABULARY))
        parts.append(sparse(z_V.softmax(-1).numpy(), *shapes[n % len(shapes)], generator))
    return concatenate(parts)


def divergence_by_definition(spec: LossSpec, one: SparseTargets, q_log_V: Tensor) -> Tensor:
    """Return the divergence of one position, written out over entries or over buckets."""
    ids, weights = torch.tensor(one.ids_E).long(), torch.tensor(one.weights_E).double()
    if spec.kind == "forward_kl" and not spec.coarse_tail and not one.is_head_E.all():
        return -float(one.entropy_N[0]) - (weights * q_log_V[ids]).sum()
    head = ids[torch.tensor(one.is_head_E)]
    outside = torch.ones_like(q_log_V, dtype=torch.bool)
    outside[head] = False
    p = torch.cat([weights[torch.tensor(one.is_head_E)], torch.tensor(one.tail_N).double()])
    tail_log = q_log_V[outside].logsumexp(-1, keepdim=True)
    q_log = torch.cat([q_log_V[head], tail_log])
    if not outside.any():
        p, q_log = p[:-1], q_log[:-1]
    return TERMS[spec.kind](p.log(), q_log, spec).sum()


def by_definition(
    spec: LossSpec, targets: SparseTargets | None, batch: Batch, positions: int
) -> Tensor:
    """Return the objective from dense float64 logits, one position at a time."""
    z_NV = batch.hidden_ND.double() @ batch.weight_VD.double().T
    losses = [
        spec.cross_entropy_weight * -z_V.log_softmax(-1)[y]
        for z_V, y in zip(z_NV, batch.next_ids_N, strict=True)
    ]
    if targets is not None and spec.needs_targets:
        for n, z_V in enumerate(z_NV):
            one = select(targets, np.array([n]))
            q_log_V = (z_V / spec.temperature).log_softmax(-1)
            losses[n] = losses[n] + spec.divergence_weight * divergence_by_definition(
                spec, one, q_log_V
            )
    return torch.stack(losses).sum() / positions


def fused(
    spec: LossSpec,
    targets: SparseTargets | None,
    batch: Batch,
    positions: int,
    tile: int | None = 4,
) -> Tensor:
    tensors = None if targets is None else TorchTargets.from_numpy(targets)
    return fused_sparse_loss(
        batch.hidden_ND, batch.weight_VD, tensors, batch.next_ids_N, spec, positions, tile=tile
    )


class Sizes(TorchDispatchMode):
    """Records every operation with the number of elements that it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen += [(str(func), t.numel()) for t in [result] if isinstance(t, Tensor)]
        return result

    @property
    def largest(self) -> int:
        return max(size for _, size in self.seen)

    def names_of(self, size: int) -> set[str]:
        return {name for name, own in self.seen if own == size}


def gradients(loss: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    by_hidden, by_weight = torch.autograd.grad(loss, (batch.hidden_ND, batch.weight_VD))
    return by_hidden, by_weight


@every_spec
def test_fused_value_and_gradient_agree_with_the_definition_in_float64(spec: LossSpec) -> None:
    batch, targets = make_batch(0, 13), make_targets(1, 13)
    ours, theirs = fused(spec, targets, batch, 20), by_definition(spec, targets, batch, 20)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        gradients(ours, batch), gradients(theirs, batch), rtol=1e-8, atol=1e-10
    )


@every_spec
def test_fused_agrees_with_the_definition_in_float32(spec: LossSpec) -> None:
    batch, targets = make_batch(2, 13, torch.float32), make_targets(3, 13)
    ours, theirs = fused(spec, targets, batch, 13), by_definition(spec, targets, batch, 13)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        gradients(ours, batch), gradients(theirs, batch), rtol=1e-4, atol=2e-5
    )


@every_spec
def test_under_bfloat16_autocast_the_gradient_is_float32_and_close(spec: LossSpec) -> None:
    batch, targets = make_batch(4, 13, torch.float32), make_targets(5, 13)
    with torch.autocast("cpu", torch.bfloat16):
        ours = fused(spec, targets, batch, 13)
    theirs = by_definition(spec, targets, batch, 13)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs.float(), rtol=0.02, atol=0.02)
    for mine, exact in zip(gradients(ours, batch), gradients(theirs, batch), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - exact).norm() < 0.03 * exact.norm()


def test_the_backward_pass_scales_the_gradient_by_that_of_the_loss() -> None:
    batch, targets = make_batch(6, 7), make_targets(7, 7)
    once = gradients(fused(LossSpec(), targets, batch, 7), batch)
    thrice = gradients(3 * fused(LossSpec(), targets, batch, 7), batch)
    torch.testing.assert_close(thrice, tuple(3 * g for g in once))


@pytest.mark.parametrize("tile", [1, 2, 5, 13, 1000, None])
def test_the_size_of_a_tile_changes_nothing(tile: int | None) -> None:
    batch, targets = make_batch(8, 13), make_targets(9, 13)
    reference = fused(LossSpec(cross_entropy=0.2), targets, batch, 13, tile=3)
    loss = fused(LossSpec(cross_entropy=0.2), targets, batch, 13, tile=tile)
    torch.testing.assert_close(loss, reference, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        gradients(loss, batch), gradients(reference, batch), rtol=1e-11, atol=1e-13
    )


@every_spec
def test_neither_the_split_into_micro_batches_nor_their_order_changes_the_step(
    spec: LossSpec,
) -> None:
    batch, targets = make_batch(10, 12), make_targets(11, 12)
    whole = fused(spec, targets, batch, 12)

    def part(where: list[int]) -> Tensor:
        piece = Batch(batch.hidden_ND[where], batch.weight_VD, batch.next_ids_N[where])
        return fused(spec, select(targets, np.array(where)), piece, 12)

    split = part([11, 3, 4]) + part([0, 1, 2, 5, 6, 7, 8, 10]) + part([9])
    torch.testing.assert_close(split, whole, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        gradients(split, batch), gradients(whole, batch), rtol=1e-11, atol=1e-13
    )


def test_a_micro_batch_without_loss_positions_adds_nothing() -> None:
    batch = make_batch(12, 0)
    loss = fused(LossSpec(), concatenate([]), batch, 5)
    assert loss.item() == 0
    assert all(not g.any() for g in gradients(loss, batch))


def as_logits(z_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Return hidden states and a head whose logits are `z_NV`."""
    return z_NV.clone().requires_grad_(), torch.eye(z_NV.shape[1], dtype=z_NV.dtype)


@pytest.mark.parametrize("kind", COARSE_KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_student_that_agrees_on_every_bucket_has_zero_loss_and_zero_gradient(
    kind: Kind, dtype: torch.dtype
) -> None:
    generator = np.random.default_rng(13)
    z_NV = torch.from_numpy(2 * generator.standard_normal((6, VOCABULARY)))
    p_NV = z_NV.softmax(-1).numpy()
    targets = concatenate([sparse(p_V, 5, 0, generator) for p_V in p_NV])
    hidden, head = as_logits(z_NV.to(dtype))
    spec = LossSpec(kind, coarse_tail=True)
    loss = fused_sparse_loss(hidden, head, TorchTargets.from_numpy(targets), None, spec, 1)
    loss.backward()
    if kind == "total_variation":  # the targets' float32 rounding shows in the first order
        assert loss < 1e-6
    else:
        assert loss.abs() < 1e-11
        assert cast("Tensor", hidden.grad).abs().max() < 2e-7


def test_a_target_that_keeps_every_token_gives_the_dense_loss() -> None:
    generator = np.random.default_rng(14)
    z_teacher, z = torch.from_numpy(generator.standard_normal((2, 6, VOCABULARY)))
    p_log = z_teacher.log_softmax(-1)
    kept = [sparse(p_V, VOCABULARY, 0, generator) for p_V in p_log.exp().numpy()]
    for kind in COARSE_KINDS:
        spec = LossSpec(kind, coarse_tail=True)
        hidden, head = as_logits(z)
        tensors = TorchTargets.from_numpy(concatenate(kept))
        loss = fused_sparse_loss(hidden, head, tensors, None, spec, 1)
        dense = TERMS[kind](p_log, z.log_softmax(-1), spec).sum()
        torch.testing.assert_close(loss.detach(), dense, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(COARSE_KINDS),
    st.integers(0, 2**31),
    st.integers(0, VOCABULARY - 1),
    st.floats(0.1, 4),
)
def test_the_coarse_loss_is_a_lower_bound_of_the_dense_one(
    kind: Kind, seed: int, head: int, scale: float
) -> None:
    generator = np.random.default_rng(seed)
    z_teacher, z = torch.from_numpy(scale * generator.standard_normal((2, 1, VOCABULARY)))
    p_log = z_teacher.log_softmax(-1)
    targets = TorchTargets.from_numpy(sparse(p_log[0].exp().numpy(), head, 0, generator))
    spec = LossSpec(kind, beta=0.4, coarse_tail=True)
    hidden, eye = as_logits(z)
    coarse = fused_sparse_loss(hidden, eye, targets, None, spec, 1).item()
    dense = TERMS[kind](p_log, z.log_softmax(-1), spec).sum().item()
    assert -1e-7 <= coarse <= dense * (1 + 1e-5) + 1e-6


def test_the_gradient_of_sampled_tails_is_unbiased() -> None:
    """Mean over 8,000 draws against the dense gradient: |z| < 4.5 for 38 numbers, chance 3e-4.

    Without rounding, head gradients have no variance: 1e-7 stands for the float32 of the targets.
    """
    draws = 8_000
    generator = np.random.default_rng(15)
    z_teacher, z = torch.from_numpy(1.5 * generator.standard_normal((2, VOCABULARY)))
    p_V = z_teacher.softmax(-1).numpy()
    targets = concatenate([sparse(p_V, 2, 3, generator) for _ in range(draws)])
    hidden, head = as_logits(z.expand(draws, -1))
    tensors = TorchTargets.from_numpy(targets)
    fused_sparse_loss(hidden, head, tensors, None, LossSpec(), 1).backward()
    gradient_NV = cast("Tensor", hidden.grad)
    q_V = z.softmax(-1)
    dense_V = q_V - torch.from_numpy(p_V)

    def worst_z(expected_V: Tensor) -> float:
        error_V = (gradient_NV.mean(0) - expected_V).abs()
        return float((error_V / (gradient_NV.std(0) / draws**0.5 + 1e-7)).max())

    assert worst_z(dense_V) < 4.5
    head_V = torch.zeros_like(q_V)
    kept = torch.tensor(targets.ids_E[:2]).long()
    head_V[kept] = torch.from_numpy(p_V)[kept] / torch.from_numpy(p_V)[kept].sum()
    assert worst_z(q_V - head_V) > 20, "a renormalised head must not pass for the teacher"

    values_N = -tensors.entropy_N - torch.zeros(draws).index_add(
        0, tensors.row_E, tensors.weights_E * z.log_softmax(-1)[tensors.ids_E].float()
    )
    exact = forward_kl(z_teacher.log_softmax(-1), z.log_softmax(-1))
    assert abs(float((values_N.mean() - exact) / (values_N.std() / draws**0.5))) < 4.5


def test_a_tiny_tail_of_the_student_keeps_its_digits() -> None:
    z = torch.tensor([[30.0, 0.0, 1.0, -1.0]])
    p_V = np.array([0.9, 0.05, 0.03, 0.02])
    targets = sparse(p_V, 1, 0, np.random.default_rng(0))
    hidden, head = as_logits(z)
    loss = fused_sparse_loss(hidden, head, TorchTargets.from_numpy(targets), None, LossSpec(), 1)
    exact = divergence_by_definition(LossSpec(), targets, z[0].double().log_softmax(-1))
    torch.testing.assert_close(loss.detach(), exact.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("spec", [LossSpec(k, coarse_tail=True) for k in COARSE_KINDS], ids=str)
def test_a_student_that_is_certain_leaves_value_and_gradient_finite(spec: LossSpec) -> None:
    z_NV = torch.full((6, VOCABULARY), -300.0)
    z_NV[:, 0] = 300.0
    hidden, head = as_logits(z_NV)
    tensors = TorchTargets.from_numpy(make_targets(16, 6))
    loss = fused_sparse_loss(hidden, head, tensors, None, spec, 6)
    loss.backward()
    assert loss.isfinite()
    assert cast("Tensor", hidden.grad).isfinite().all()


def test_a_frozen_head_gets_no_gradient_and_costs_no_buffer_for_one() -> None:
    batch, targets = make_batch(17, 9), make_targets(18, 9)
    frozen = replace(batch, weight_VD=batch.weight_VD.detach())
    with Sizes() as trainable_sizes:
        fused(LossSpec(), targets, batch, 9).backward()
    with Sizes() as frozen_sizes:
        loss = fused(LossSpec(), targets, frozen, 9)
    (by_hidden,) = torch.autograd.grad(loss, frozen.hidden_ND)
    torch.testing.assert_close(by_hidden, batch.hidden_ND.grad)
    made = {"aten.zeros_like.default", "aten.addmm_.default"}
    assert made <= trainable_sizes.names_of(VOCABULARY * WIDTH)
    assert not made & frozen_sizes.names_of(VOCABULARY * WIDTH)


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[3], SPECS[-1]], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_no_tensor_as_large_as_positions_times_vocabulary_ever_exists(
    spec: LossSpec, autocast: bool
) -> None:
    positions, tile = 96, 8
    batch, targets = make_batch(19, positions, torch.float32), make_targets(20, positions)
    tensors = TorchTargets.from_numpy(targets)
    with Sizes() as sizes, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = fused_sparse_loss(
            batch.hidden_ND, batch.weight_VD, tensors, batch.next_ids_N, spec, positions, tile=tile
        )
        loss.backward()
    # Tile of logits, hidden states, head, entries: nothing else grows.
    allowed = max(tile * VOCABULARY, positions * WIDTH, VOCABULARY * WIDTH, len(targets.ids_E))
    assert sizes.largest <= allowed < positions * VOCABULARY


def test_the_recorder_of_sizes_sees_a_plain_cross_entropy() -> None:
    batch = make_batch(21, 96)
    with Sizes() as sizes:
        functional.cross_entropy(batch.hidden_ND @ batch.weight_VD.T, batch.next_ids_N)
    assert sizes.largest >= 96 * VOCABULARY


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_evaluation_gives_the_same_value_without_a_gradient(guard: Any) -> None:
    batch, targets = make_batch(22, 9), make_targets(23, 9)
    with guard():
        value = fused(LossSpec(cross_entropy=0.5), targets, batch, 9)
    assert not value.requires_grad
    torch.testing.assert_close(
        value, fused(LossSpec(cross_entropy=0.5), targets, batch, 9).detach()
    )


def test_the_same_call_gives_the_same_bits() -> None:
    batch, targets = make_batch(24, 30, torch.float32), make_targets(25, 30)
    first, second = (gradients(fused(LossSpec(), targets, batch, 30), batch) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_second_backward_pass_is_refused() -> None:
    batch, targets = make_batch(26, 5), make_targets(27, 5)
    loss = fused(LossSpec(), targets, batch, 5)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass only"):
        loss.backward()


@pytest.mark.parametrize("kind", [k for k in COARSE_KINDS if k != "forward_kl"])
def test_a_loss_that_needs_the_dense_tail_is_refused_on_sparse_targets(kind: Kind) -> None:
    with pytest.raises(LossError, match=f"{kind} needs the teacher's dense distribution"):
        fused(LossSpec(kind), make_targets(28, 5), make_batch(28, 5), 5)


def test_inputs_that_are_missing_or_do_not_fit_are_named() -> None:
    batch, targets = make_batch(29, 5), make_targets(29, 5)
    with pytest.raises(LossError, match="forward_kl needs the teacher's targets, got none"):
        fused(LossSpec(), None, batch, 5)
    with pytest.raises(LossError, match="cross-entropy needs the realised next tokens"):
        fused_sparse_loss(
            batch.hidden_ND, batch.weight_VD, None, None, LossSpec("cross_entropy"), 5
        )
    with pytest.raises(LossError, match="cover 4 positions and the student's states 5"):
        fused(LossSpec(), select(targets, np.arange(4)), batch, 5)
    foreign = replace(targets, ids_E=targets.ids_E + 1)
    with pytest.raises(LossError, match=r"ids from 1 to 37; the student's head knows 0 to 36"):
        fused(LossSpec(), foreign, batch, 5)
    with pytest.raises(LossError, match="at least 1, got 0"):
        fused(LossSpec(), targets, batch, 0)
