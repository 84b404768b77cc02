"""The training loss on sparse targets from hidden states: softmax, loss and gradient of each tile.

`tiles` walks over the positions; no teacher weights are needed. What happens to a tile of logits z:

    e = exp(z - max z); its sums over head and tail; log q     float32, in place
    dz = coefficient_n q_nj + corrections at the entries       float32, in place
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.distill.losses import LOG_FLOOR
from limbeck.distill.objective import LossSpec, check_tail
from limbeck.distill.sparse_loss import loss_and_gradient, sparse_loss
from limbeck.distill.tiles import tiled_loss
from limbeck.distill.torch_targets import Members, TorchTargets, cut, realised
from limbeck.errors import LossError


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
    """Return the objective summed over N loss positions, over `positions`; see `tiles.tiled_loss`.

    Args:
        hidden_ND: The student's last hidden states at the loss positions.
        weight_VD: The output head; it has no bias, and nothing follows it.
        targets: What the teacher said at these positions; None only for `kind = "cross_entropy"`.
        next_ids_N: Realised next tokens; None where `spec` has no cross-entropy.
        spec: What is minimised.
        positions: Loss positions of the whole optimiser step, over all micro-batches and processes.
        tile: Positions computed at a time; None fits their float32 logits into `tiles.TILE_BYTES`.

    Raises:
        LossError: An input that `spec` needs is absent, does not fit the others, or cannot support
            the loss.
    """
    if positions < 1:
        raise LossError(f"the loss positions of a step must be at least 1, got {positions}")
    shares = _shares(spec, targets, next_ids_N)
    for claim in (claim for share in shares for claim in share.claims):
        _check_fit(claim.targets, positions=len(hidden_ND), vocabulary=len(weight_VD))
    return tiled_loss(hidden_ND, weight_VD, shares, tile=tile) / positions


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

    def __call__(self, z_NV: Tensor, start: int, *, gradient: bool) -> Tensor:
        """Return the summed loss of a tile whose logits become their gradient."""
        return _differentiate(self, z_NV, start, gradient=gradient)


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
