"""Losses of a head's logits, and their gradients, a tile of positions at a time.

The gradient is computed in the forward pass, while a tile's logits are at hand, and only scaled in
the backward pass. So no [N, V] tensor ever exists and nothing is computed twice. Per tile:

    z = hidden @ weight^T                                      in the weight's or autocast's dtype
    dz = d loss / d z                                          float32, in place
    d hidden = dz @ weight;  d weight += dz^T @ hidden         products like z, summed in float32
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

TILE_BYTES = 64 * 2**20
"""Size of a tile of float32 logits when the caller names no number of positions."""

_ADD_ROWS = 2048
"""Rows of a half-precision product that are widened at a time, to stay within the cache."""


class TileLoss(Protocol):
    """A loss over N positions that turns a tile of logits into its gradient, where they lie."""

    def __call__(self, z_NV: Tensor, start: int, *, gradient: bool) -> Tensor:
        """Return the summed loss of the positions from `start`; `z_NV` becomes the gradient by itself.

        Args:
            z_NV: The student's raw logits of consecutive positions, in float32 or float64.
            start: The first of those positions.
            gradient: Whether the gradient is wanted; without it `z_NV` may hold anything afterwards.
        """
        ...


def tiled_loss(
    hidden_ND: Tensor, weight_VD: Tensor, losses: Sequence[TileLoss], *, tile: int | None = None
) -> Tensor:
    """Return the sum of some losses of hidden @ weight^T over all positions; differentiable once.

    Under autocast the weight is cast once a call, and its gradient comes back in its own dtype. A
    weight that needs no gradient costs none. The gradient lives in one buffer, so a call allows one
    backward pass.

    Args:
        hidden_ND: The student's last hidden states at the loss positions.
        weight_VD: The output head; it has no bias, and nothing follows it.
        losses: Each gets its own copy of the logits, and their gradients are added.
        tile: Positions computed at a time; None fits their float32 logits into `TILE_BYTES`.
    """
    device = hidden_ND.device.type
    autocast = torch.is_autocast_enabled(device)
    job = _Job(
        losses=tuple(losses),
        dtype=torch.get_autocast_dtype(device) if autocast else weight_VD.dtype,
        rows=tile or max(1, TILE_BYTES // (4 * len(weight_VD))),
        hidden_gradient=torch.is_grad_enabled() and hidden_ND.requires_grad,
        weight_gradient=torch.is_grad_enabled() and weight_VD.requires_grad,
    )
    return cast("Tensor", _Tiled.apply(hidden_ND, weight_VD, job))


@dataclass(frozen=True, slots=True)
class _Job:
    """One call: what to compute, in which dtype, how many rows at a time, which gradients."""

    losses: tuple[TileLoss, ...]
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


class _Tiled(torch.autograd.Function):
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
        raise RuntimeError("a tiled loss keeps its gradient for one backward pass only")
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
    in_place = len(job.losses) == 1 and job.dtype == job.wide
    works = [logits_NV if in_place else logits_NV.to(job.wide, copy=True) for _ in job.losses]
    total = torch.zeros((), dtype=job.wide, device=weight_VD.device)
    by_hidden_ND = torch.empty_like(hidden_ND, dtype=job.dtype) if job.hidden_gradient else None
    by_weight_VD = torch.zeros_like(weight_VD, dtype=job.wide) if job.weight_gradient else None
    for start, stop in bounds:
        hidden = hidden_ND[start:stop].to(job.dtype)
        z_NV = torch.mm(hidden, weight_VD.t(), out=logits_NV[: stop - start])
        dz_parts = [z_NV if in_place else work[: stop - start].copy_(z_NV) for work in works]
        for loss, dz_NV in zip(job.losses, dz_parts, strict=True):
            total += loss(dz_NV, start, gradient=job.gradient)
        if not job.gradient:
            continue
        if not in_place:
            z_NV.copy_(dz_parts[0] if len(dz_parts) == 1 else dz_parts[0].add_(dz_parts[1]))
        if by_hidden_ND is not None:
            torch.mm(z_NV, weight_VD, out=by_hidden_ND[start:stop])
        if by_weight_VD is not None:
            _add_product(by_weight_VD, z_NV, hidden)
    return _Result(total, by_hidden_ND, by_weight_VD)


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
