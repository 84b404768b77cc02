"""The training loss from hidden states: head, softmax, loss and gradient, tile by tile.

The gradient is computed in the forward pass, while a tile's logits are at hand, and only scaled in
the backward pass. So no [N, V] tensor ever exists, nothing is computed twice, and no teacher
weights are needed. Per tile:

    z = hidden @ weight^T                                      in the weight's or autocast's dtype
    e = exp(z - max z); its sums over head and tail; log q     float32, in place
    dz = coefficient_n q_nj + corrections at the entries       float32, in place
    d hidden = dz @ weight;  d weight += dz^T @ hidden         products like z, summed in float32
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from limbeck.distill.losses import LOG_FLOOR
from limbeck.distill.objective import LossSpec, check_tail
from limbeck.distill.sparse_loss import loss_and_gradient, sparse_loss
from limbeck.distill.torch_targets import Members, TorchTargets, cut, realised
from limbeck.errors import LossError

TILE_BYTES = 64 * 2**20
"""Size of a tile of float32 logits when the caller names no number of positions."""

_ADD_ROWS = 2048
"""Rows of a half-precision product that are widened at a time, to stay within the cache."""


def fused_sparse_loss(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets: TorchTargets | None,
    next_ids_N: Tensor | None,
    spec: LossSpec,
    positions: int,
    *,
    tile: int | None = None,
) -> Tensor:
    """Return the objective summed over N loss positions, over `positions`; differentiable once.

    Under autocast the weight is cast once a call, and its gradient comes back in its own dtype. A
    weight that needs no gradient costs none. The gradient lives in one buffer, so a call allows one
    backward pass.

    Args:
        hidden_ND: The student's last hidden states at the loss positions.
        weight_VD: The output head; it has no bias, and nothing follows it.
        targets: What the teacher said at these positions; None only for `kind = "cross_entropy"`.
        next_ids_N: Realised next tokens; None where `spec` has no cross-entropy.
        spec: What is minimised.
        positions: Loss positions of the whole optimiser step, over all micro-batches and processes.
        tile: Positions computed at a time; None fits their float32 logits into `TILE_BYTES`.

    Raises:
        LossError: An input that `spec` needs is absent, does not fit the others, or cannot support
            the loss.
    """
    if positions < 1:
        raise LossError(f"the loss positions of a step must be at least 1, got {positions}")
    device = hidden_ND.device.type
    autocast = torch.is_autocast_enabled(device)
    job = _Job(
        shares=_shares(spec, targets, next_ids_N),
        dtype=torch.get_autocast_dtype(device) if autocast else weight_VD.dtype,
        rows=tile or max(1, TILE_BYTES // (4 * len(weight_VD))),
        hidden_gradient=torch.is_grad_enabled() and hidden_ND.requires_grad,
        weight_gradient=torch.is_grad_enabled() and weight_VD.requires_grad,
    )
    for claim in (claim for share in job.shares for claim in share.claims):
        _check_fit(claim.targets, positions=len(hidden_ND), vocabulary=len(weight_VD))
    return cast("Tensor", _Fused.apply(hidden_ND, weight_VD, job)) / positions


@dataclass(frozen=True, slots=True)
class _Claim:
    """A weighted sparse loss."""

    weight: float
    spec: LossSpec
    targets: TorchTargets


@dataclass(frozen=True, slots=True)
class _Share:
    """The claims that read the student at one temperature; at most one of them has a head."""

    temperature: float
    claims: tuple[_Claim, ...]


def _shares(
    spec: LossSpec, targets: TorchTargets | None, next_ids_N: Tensor | None
) -> tuple[_Share, ...]:
    """Split the objective into divergence and cross-entropy; join them at equal temperature."""
    check_tail(spec)
    claims: list[tuple[float, _Claim]] = []
    if spec.needs_targets:
        if targets is None:
            raise LossError(f"loss.kind = {spec.kind} needs the teacher's targets, got none")
        claims.append((spec.temperature, _Claim(spec.divergence_weight, spec, targets)))
    if spec.cross_entropy_weight:
        if next_ids_N is None:
            raise LossError("cross-entropy needs the realised next tokens, got none")
        claims.append((1.0, _Claim(spec.cross_entropy_weight, LossSpec(), realised(next_ids_N))))
    temperatures = sorted({temperature for temperature, _ in claims})
    return tuple(_Share(t, tuple(c for own, c in claims if own == t)) for t in temperatures)


def _check_fit(targets: TorchTargets, *, positions: int, vocabulary: int) -> None:
    if len(targets) != positions:
        raise LossError(
            f"the targets cover {len(targets)} positions and the student's states {positions}; "
            "they must be the same positions"
        )
    ids = targets.ids_E if targets.members is None else targets.members.ids_M
    if not len(ids):
        return
    low, high = (int(bound) for bound in ids.aminmax())
    if low < 0 or high >= vocabulary:
        raise LossError(
            f"the targets hold token ids from {low} to {high}; "
            f"the student's head knows 0 to {vocabulary - 1}"
        )


@dataclass(frozen=True, slots=True)
class _Job:
    """One call: what to compute, in which dtype, how many rows at a time, which gradients."""

    shares: tuple[_Share, ...]
    dtype: torch.dtype
    rows: int
    hidden_gradient: bool
    weight_gradient: bool

    @property
    def wide(self) -> torch.dtype:
        """The dtype of softmax, loss and sums."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def gradient(self) -> bool:
        """True when any gradient is wanted."""
        return self.hidden_gradient or self.weight_gradient


@dataclass(frozen=True, slots=True)
class _Result:
    """The summed loss and its gradients: by hidden in the job's dtype, by weight in its wide one."""

    total: Tensor
    by_hidden_ND: Tensor | None
    by_weight_VD: Tensor | None


class _Context(FunctionCtx):
    """What autograd carries from forward to backward."""

    result: _Result | None
    dtypes: tuple[torch.dtype, torch.dtype]


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, hidden_ND: Tensor, weight_VD: Tensor, job: _Job) -> Tensor:
        with torch.autocast(hidden_ND.device.type, enabled=False):
            result = _compute(hidden_ND.detach(), weight_VD.detach(), job)
        ctx.result, ctx.dtypes = result, (hidden_ND.dtype, weight_VD.dtype)
        return result.total

    @staticmethod
    def backward(ctx: _Context, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        return _scaled_gradient(ctx, *grad_outputs)


@once_differentiable
def _scaled_gradient(ctx: _Context, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    """Hand the kept gradient over, times the gradient of the loss itself."""
    if ctx.result is None:
        raise RuntimeError("fused_sparse_loss keeps its gradient for one backward pass only")
    hidden, weight = ctx.result.by_hidden_ND, ctx.result.by_weight_VD
    ctx.result = None  # so that autograd owns the buffer alone and adopts it without a copy
    return (
        None if hidden is None else hidden.to(scale.dtype).mul_(scale).to(ctx.dtypes[0]),
        None if weight is None else weight.mul_(scale).to(ctx.dtypes[1]),
        None,
    )


def _compute(hidden_ND: Tensor, weight_VD: Tensor, job: _Job) -> _Result:
    """Walk over the tiles with one set of buffers."""
    weight_VD = weight_VD.to(job.dtype)
    bounds = _bounds(len(hidden_ND), job.rows)
    height = max((stop - start for start, stop in bounds), default=0)
    logits_NV = weight_VD.new_empty(height, len(weight_VD))
    in_place = len(job.shares) == 1 and job.dtype == job.wide
    works = [logits_NV if in_place else logits_NV.to(job.wide, copy=True) for _ in job.shares]
    total = torch.zeros((), dtype=job.wide, device=weight_VD.device)
    by_hidden_ND = torch.empty_like(hidden_ND, dtype=job.dtype) if job.hidden_gradient else None
    by_weight_VD = torch.zeros_like(weight_VD, dtype=job.wide) if job.weight_gradient else None
    for start, stop in bounds:
        hidden = hidden_ND[start:stop].to(job.dtype)
        z_NV = torch.mm(hidden, weight_VD.t(), out=logits_NV[: stop - start])
        dz_parts = [z_NV if in_place else work[: stop - start].copy_(z_NV) for work in works]
        for share, dz_NV in zip(job.shares, dz_parts, strict=True):
            total += _differentiate(share, dz_NV, start, gradient=job.gradient)
        if not job.gradient:
            continue
        if not in_place:
            z_NV.copy_(dz_parts[0] if len(dz_parts) == 1 else dz_parts[0].add_(dz_parts[1]))
        if by_hidden_ND is not None:
            torch.mm(z_NV, weight_VD, out=by_hidden_ND[start:stop])
        if by_weight_VD is not None:
            _add_product(by_weight_VD, z_NV, hidden)
    return _Result(total, by_hidden_ND, by_weight_VD)


def _differentiate(share: _Share, z_NV: Tensor, start: int, *, gradient: bool) -> Tensor:
    """Return a share's summed loss over a tile; `z_NV` becomes its gradient by the raw logits.

    Without `gradient` the place of `z_NV` holds nothing of use afterwards.
    """
    tiles = [cut(claim.targets, start, start + len(z_NV)) for claim in share.claims]
    if share.temperature != 1:
        z_NV.div_(share.temperature)
    z_NV.sub_(z_NV.amax(-1, keepdim=True))
    tokens = [_tokens_of(tile, z_NV) for tile in tiles]
    z_of_tokens = [z_NV[rows, ids] for rows, ids in tokens]
    total_N, tail_N = _exponentiate(z_NV, tiles, tokens)
    log_total_N = total_N.log()
    log_q_tail_N = (tail_N.log() - log_total_N).clamp(min=LOG_FLOOR)
    loss = total_N.new_zeros(())
    coefficient_N = torch.zeros_like(total_N)
    corrections: list[tuple[tuple[Tensor, Tensor], Tensor]] = []
    for claim, tile, own, z_M in zip(share.claims, tiles, tokens, z_of_tokens, strict=True):
        z_E = _summed(tile.members, z_M)
        log_q_E = z_E - log_total_N[tile.row_E]
        if not gradient:
            loss += claim.weight * sparse_loss(claim.spec, tile, log_q_E, log_q_tail_N).sum()
            continue
        loss_N, by_logits = loss_and_gradient(claim.spec, tile, log_q_E, log_q_tail_N)
        factor = claim.weight / share.temperature
        loss += claim.weight * loss_N.sum()
        coefficient_N += factor * by_logits.coefficient_N
        corrections.append((own, factor * _shared(tile.members, z_M, z_E, by_logits.correction_E)))
    if gradient:
        z_NV.mul_((coefficient_N / total_N).unsqueeze(-1))
    for own, correction_M in corrections:
        z_NV.index_put_(own, correction_M, accumulate=True)
    return loss


def _tokens_of(tile: TorchTargets, z_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Return (position, id) of the tokens that a tile's entries are made of."""
    if tile.members is not None:
        return tile.row_E[tile.members.entry_M], tile.members.ids_M
    if tile.ranked and len(tile.ids_E):
        ranking_NK = z_NV.topk(int(tile.ids_E.max()) + 1).indices
        return tile.row_E, ranking_NK[tile.row_E, tile.ids_E]
    return tile.row_E, tile.ids_E


def _summed(members: Members | None, z_M: Tensor) -> Tensor:
    """Return log(sum of exp(z)) over the tokens of each entry."""
    if members is None:
        return z_M
    entries = len(members.offsets_E1) - 1
    top_E = z_M.new_full((entries,), -torch.inf).scatter_reduce(0, members.entry_M, z_M, "amax")
    sum_E = z_M.new_zeros(entries).index_add(
        0, members.entry_M, (z_M - top_E[members.entry_M]).exp()
    )
    return top_E + sum_E.log()


def _shared(members: Members | None, z_M: Tensor, z_E: Tensor, correction_E: Tensor) -> Tensor:
    """Deal an entry's correction out to its tokens by their shares: d log Q / d z_j = q_j / Q - q_j."""
    if members is None:
        return correction_E
    return (z_M - z_E[members.entry_M]).exp() * correction_E[members.entry_M]


def _exponentiate(
    z_NV: Tensor, tiles: Sequence[TorchTargets], tokens: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Replace z by exp(z) in place; return each row's sum, and its sum outside the head.

    The tail is summed by itself: 1 minus the head's probabilities would cancel where the tail is
    small.
    """
    heads = [_in_head(tile) for tile in tiles]
    row_H, ids_H = (
        torch.cat([own[kept] for own, kept in zip(column, heads, strict=True)])
        for column in zip(*tokens, strict=True)
    )
    z_NV.exp_()
    head_H = z_NV[row_H, ids_H]
    z_NV.index_put_((row_H, ids_H), z_NV.new_zeros(()))
    tail_N = z_NV.sum(-1)
    z_NV.index_put_((row_H, ids_H), head_H)
    return tail_N.index_add(0, row_H, head_H), tail_N


def _in_head(tile: TorchTargets) -> Tensor:
    """Tell of each of a tile's tokens whether it belongs to the head."""
    return tile.is_head_E if tile.members is None else tile.is_head_E[tile.members.entry_M]


def _add_product(sum_VD: Tensor, left_NV: Tensor, right_ND: Tensor) -> None:
    """Add left^T @ right to a sum that may be wider than the product."""
    if sum_VD.dtype == left_NV.dtype:
        sum_VD.addmm_(left_NV.t(), right_ND)
        return
    product_VD = torch.mm(left_NV.t(), right_ND)
    for sum_part, part in zip(sum_VD.split(_ADD_ROWS), product_VD.split(_ADD_ROWS), strict=True):
        sum_part.add_(part)


def _bounds(positions: int, rows: int) -> list[tuple[int, int]]:
    """Cut positions into tiles of at most `rows`, as even as they come."""
    tiles = -(-positions // rows)
    return list(pairwise(positions * i // tiles for i in range(tiles + 1))) if tiles else []
