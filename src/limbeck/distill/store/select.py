"""From a dense distribution to a sparse one whose expectation is the dense one."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from torch import Tensor

from limbeck.distill.store.codec import ENTROPY_STEPS, Grid
from limbeck.distill.store.coder import Numbers
from limbeck.distill.store.spec import StoreSpec
from limbeck.distill.targets import SparseTargets
from limbeck.errors import StoreError

Doubles = npt.NDArray[np.float64]
_BLOCK = 256
_ROWS = 32
"""Rows whose heads are looked for at once: 32 x 49,152 float32 is 6 MB."""
_CACHED = 2
"""Rows that are read at once: their probabilities are still in a core's own cache for entropy and sums."""


def sparsify(
    log_probs_NV: Tensor,
    realised_ids_N: Tensor | None,
    spec: StoreSpec,
    generator: torch.Generator,
) -> SparseTargets:
    """Keep the head, a few samples of the tail, and the entropy; unbiased for every token.

    With t the weights that come back, summed per token, E[t] = p for every token and every position,
    and sum(t) = 1 wherever samples are drawn. Masses come back as multiples of 1 / spec.levels, each
    within 1 / levels of p except that a tail below `tail_floor` is rounded to 0 or to the floor. The
    tail is sampled systematically: one random start, then equal steps through the tail's cumulative
    mass in order of id.

    Args:
        log_probs_NV: float32 log-probabilities, normalised; all work is done where they lie.
        realised_ids_N: The token that was *drawn from this very distribution* at each position, or
            None where the text comes from elsewhere. It then is one of the tail's samples wherever it
            lies in the tail, which changes no expectation (docs/store-format.md has the proof).
        spec: What to keep.
        generator: A CPU generator; the same state gives the same targets.
    """
    if log_probs_NV.ndim != 2:
        raise StoreError(f"log-probabilities must be [N, V], got {tuple(log_probs_NV.shape)}")
    positions = log_probs_NV.shape[0]
    draws_N4 = torch.rand(positions, 4, dtype=torch.float64, generator=generator, device="cpu")
    draws_N4 = draws_N4.to(log_probs_NV.device)
    owner_H, ids_H, head_H, blocks_NC, entropy_N = _scan(log_probs_NV, spec)
    heads_N = torch.bincount(owner_H, minlength=positions)
    mass_H, rest_N = _masses(owner_H, heads_N, head_H, blocks_NC[:, -1], spec, draws_N4)
    grid = grid_of(spec, log_probs_NV.shape[1])
    samples_N = torch.from_numpy(grid.samples_of(rest_N.cpu().numpy())).to(rest_N.device)
    tail = _Tail(log_probs_NV, blocks_NC, owner_H, ids_H, heads_N)
    owner_S, ids_S = _sample(tail, samples_N, realised_ids_N, draws_N4)
    order = torch.argsort(owner_S * log_probs_NV.shape[1] + ids_S)
    return join(
        heads_N.cpu().numpy(),
        ids_H.cpu().numpy(),
        mass_H.cpu().numpy(),
        samples_N.cpu().numpy(),
        ids_S[order].cpu().numpy(),
        rest_N.cpu().numpy(),
        np.rint(entropy_N.clamp(min=0).cpu().numpy() * ENTROPY_STEPS).astype(np.int64),
        spec.levels,
    )


def sparsify_known(
    heads_N: Numbers,
    ids_H: Numbers,
    probs_H: Doubles,
    realised_N: Numbers,
    spec: StoreSpec,
    generator: torch.Generator,
) -> SparseTargets:
    """Keep what a model says that tells some probabilities and no more; masses are rounded without bias.

    What the named tokens leave is tail mass without samples, for nothing is known of it. A position of which nothing
    is known at all holds its realised token as one sample of the whole mass: drawn from the model's distribution p it
    has expectation p, and forward KL with it is cross-entropy. Entropies are those of {each named token, everything
    else}, a lower bound of the full one, and 0 where nothing is known.

    Args:
        heads_N: Named tokens of each position, at most `spec.max_head`.
        ids_H: Their ids, by position, then by falling probability.
        probs_H: Their probabilities; those of a position sum to at most 1, rounding aside.
        realised_N: The token that followed at each position.
        spec: With tail_floor = 0 and tail_samples = 1.
        generator: A CPU generator; the same state gives the same targets.
    """
    positions = len(heads_N)
    draws_N4 = torch.rand(positions, 4, dtype=torch.float64, generator=generator)
    owner_H = torch.from_numpy(np.repeat(np.arange(positions), heads_N))
    named_N = np.bincount(owner_H.numpy(), weights=probs_H, minlength=positions)
    tail_N = np.clip(1.0 - named_N, 0.0, 1.0)
    mass_H, rest_N = _masses(
        owner_H,
        torch.from_numpy(heads_N),
        torch.from_numpy(probs_H),
        torch.from_numpy(tail_N),
        spec,
        draws_N4,
    )
    nothing_N = heads_N == 0
    entropy_N = special.entr(tail_N) + np.bincount(
        owner_H.numpy(), weights=special.entr(probs_H), minlength=positions
    )
    return join(
        heads_N,
        ids_H,
        mass_H.numpy(),
        nothing_N.astype(np.int64),
        realised_N[nothing_N],
        rest_N.numpy(),
        np.rint(entropy_N * ENTROPY_STEPS).astype(np.int64),
        spec.levels,
    )


def grid_of(spec: StoreSpec, vocabulary: int) -> Grid:
    """Return what the codec has to know of a spec."""
    samples = 0 if spec.top_k else spec.tail_samples
    return Grid(vocabulary, spec.levels, spec.max_head, samples, spec.tail_weight)


def _scan(log_probs_NV: Tensor, spec: StoreSpec) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Read every probability once, a few rows at a time so that they stay in the cache.

    Returns:
        Position, id and probability (float64) of the head entries, by position, then by falling
        probability; running sums of the tail over blocks of ids (float64 [N, C]); entropies (float64).
    """
    positions, vocabulary = log_probs_NV.shape
    blocks = -(-vocabulary // _BLOCK)
    sums_NC = log_probs_NV.new_zeros(positions, blocks)
    entropy_N = log_probs_NV.new_zeros(positions)
    probs_RV = log_probs_NV.new_empty(min(_ROWS, positions), vocabulary)
    heads: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, max(positions, 1), _ROWS):
        tile_RV = log_probs_NV[first : first + _ROWS]
        rows = slice(first, first + len(tile_RV))
        tile_probs_RV, sums_RC = probs_RV[: len(tile_RV)], sums_NC[rows]
        _read(tile_RV, tile_probs_RV, entropy_N[rows], sums_RC)
        owner_H, ids_H = _head(tile_probs_RV, sums_RC, spec)
        heads.append((owner_H + first, ids_H, tile_probs_RV[owner_H, ids_H].double()))
        tile_probs_RV[owner_H, ids_H] = 0.0
        block_H = ids_H // _BLOCK
        sums_RC[owner_H, block_H] = _gather(tile_probs_RV, owner_H, block_H).sum(1)
    # Zero times minus infinity is not a number; such rows are rare and are summed with care.
    odd_N = entropy_N.isnan()
    if odd_N.any():
        entropy_N[odd_N] = torch.special.entr(log_probs_NV[odd_N].exp()).sum(-1)
    owner_H, ids_H, head_H = (torch.cat(column) for column in zip(*heads, strict=True))
    return owner_H, ids_H, head_H, sums_NC.double().cumsum(1), entropy_N.double()


def _read(log_probs_RV: Tensor, probs_RV: Tensor, entropy_R: Tensor, sums_RC: Tensor) -> None:
    """Fill in probabilities, entropies and block sums, so few rows at a time that each is fetched once."""
    alone = log_probs_RV.device.type == "cpu" and torch.get_num_threads() == 1
    step = _CACHED if alone else max(1, len(log_probs_RV))  # several threads share larger pieces
    for first in range(0, len(log_probs_RV), step):
        few = slice(first, first + step)
        torch.exp(log_probs_RV[few], out=probs_RV[few])
        entropy_R[few] = -torch.linalg.vecdot(probs_RV[few], log_probs_RV[few])
        _sum_blocks(probs_RV[few], sums_RC[few])


def _sum_blocks(probs_RV: Tensor, sums_RC: Tensor) -> None:
    whole, left = divmod(probs_RV.shape[1], _BLOCK)
    torch.sum(
        probs_RV[:, : whole * _BLOCK].unflatten(1, (whole, _BLOCK)), -1, out=sums_RC[:, :whole]
    )
    if left:
        torch.sum(probs_RV[:, whole * _BLOCK :], -1, out=sums_RC[:, whole])


def _gather(values_RV: Tensor, row_P: Tensor, block_P: Tensor) -> Tensor:
    """Return one block of ids each, [P, _BLOCK]; what lies past the vocabulary is 0."""
    found_PB, beyond_PB = _blocks_of(values_RV, row_P, block_P)
    return found_PB if beyond_PB is None else found_PB.masked_fill_(beyond_PB, 0.0)


def _blocks_of(values_RV: Tensor, row_P: Tensor, block_P: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return one block of ids each, [P, _BLOCK], and which of its places lie past the vocabulary, if any."""
    rows, vocabulary = values_RV.shape
    blocks, left = divmod(vocabulary, _BLOCK)
    if not left and values_RV.is_contiguous():  # whole blocks are copied, not picked token by token
        return values_RV.view(rows * blocks, _BLOCK)[row_P * blocks + block_P], None
    ids_PB = block_P[:, None] * _BLOCK + torch.arange(_BLOCK, device=block_P.device)
    found_PB = values_RV[row_P[:, None], ids_PB.clamp(max=vocabulary - 1)]
    return found_PB, ids_PB >= vocabulary


def _head(probs_RV: Tensor, sums_RC: Tensor, spec: StoreSpec) -> tuple[Tensor, Tensor]:
    """Return (row, id) of the head entries, by row, then by falling probability."""
    if spec.top_k is not None:
        ids_RK = probs_RV.topk(min(spec.top_k, probs_RV.shape[1])).indices
        rows_R = torch.arange(len(ids_RK), device=ids_RK.device)
        owner = rows_R.repeat_interleave(ids_RK.shape[1])
        return owner, ids_RK.reshape(-1)
    # A block that holds a likely token has at least its mass: few blocks need a second look.
    row_P, block_P = (sums_RC >= spec.head_threshold * (1 - 1e-5)).nonzero(as_tuple=True)
    pair, place = (_gather(probs_RV, row_P, block_P) >= spec.head_threshold).nonzero(as_tuple=True)
    owner_H, ids_H = row_P[pair], block_P[pair] * _BLOCK + place
    # A probability is at most 1, so owner - probability sorts by both at once, exactly in float64.
    order = torch.argsort(owner_H - probs_RV[owner_H, ids_H].double() / 2, stable=True)
    owner_H, ids_H = owner_H[order], ids_H[order]
    heads_R = torch.bincount(owner_H, minlength=len(probs_RV))
    kept = _ranks(heads_R) < spec.max_head
    return owner_H[kept], ids_H[kept]


def _masses(
    owner_H: Tensor,
    heads_N: Tensor,
    head_H: Tensor,
    tail_N: Tensor,
    spec: StoreSpec,
    draws_N4: Tensor,
) -> tuple[Tensor, Tensor]:
    """Round head masses and tail to levels that sum to `levels`, without bias."""
    levels = spec.levels
    headless_N = heads_N == 0
    total_N = torch.zeros_like(tail_N).index_add_(0, owner_H, head_H) + tail_N
    tail_N = tail_N / total_N
    floor = (
        math.ceil(spec.tail_floor * levels) / levels
        if spec.tail_samples and not spec.top_k
        else 0.0
    )
    low_N = (tail_N < floor) & ~headless_N
    stays_N = draws_N4[:, 0] * floor < tail_N
    kept_N = torch.where(low_N, torch.where(stays_N, floor, 0.0), tail_N)
    share_N = (1 - kept_N) / (1 - tail_N).clamp(min=1e-300)
    exact_H = head_H / total_N[owner_H] * share_N[owner_H] * levels
    offset_N = draws_N4[:, 1]
    before_H = exact_H.cumsum(0) - exact_H
    first_H = (heads_N.cumsum(0) - heads_N)[owner_H]
    running_H = before_H - before_H[first_H] + exact_H
    ends_H = (running_H + offset_N[owner_H]).floor()
    # The head's last end and the tail share one boundary; a floored tail needs it exactly.
    last_N = heads_N.cumsum(0) - 1
    boundary_N = torch.where(
        low_N, levels * (1 - kept_N), (levels * (1 - kept_N) + offset_N).floor()
    ).round()
    some = ~headless_N
    ends_H[last_N[some]] = boundary_N[some]
    starts_H = torch.cat([ends_H.new_zeros(1), ends_H[:-1]])[: len(ends_H)]
    starts_H[first_H.unique()] = 0
    rest_N = torch.where(headless_N, float(levels), levels - boundary_N)
    return (ends_H - starts_H).long(), rest_N.long()


@dataclass(frozen=True, slots=True)
class _Tail:
    """The tails of N distributions: the dense ones, less their heads."""

    log_probs_NV: Tensor
    blocks_NC: Tensor
    """Running sums over blocks of ids."""
    owner_H: Tensor
    ids_H: Tensor
    heads_N: Tensor

    def within(self, owner_S: Tensor, block_S: Tensor) -> Tensor:
        """Return the probabilities in one block of ids each, float64 [S, _BLOCK]; the head's are 0."""
        logs_SB, beyond_SB = _blocks_of(self.log_probs_NV, owner_S, block_S)
        within_SB = logs_SB.exp().double()
        if beyond_SB is not None:
            within_SB[beyond_SB] = 0.0
        heads_S = self.heads_N[owner_S]
        sample = torch.arange(len(owner_S), device=owner_S.device).repeat_interleave(heads_S)
        starts_N = self.heads_N.cumsum(0) - self.heads_N
        ids = self.ids_H[starts_N[owner_S].repeat_interleave(heads_S) + _ranks(heads_S)]
        here = ids // _BLOCK == block_S[sample]
        within_SB[sample[here], ids[here] % _BLOCK] = 0.0
        return within_SB

    def point(self, ids_N: Tensor, draw_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return a uniform point of each id's stretch of cumulative mass, and the id's mass, or 0."""
        rows, block_N = torch.arange(len(ids_N), device=ids_N.device), ids_N // _BLOCK
        within_NB = self.within(rows, block_N)
        mass_N = within_NB[rows, ids_N % _BLOCK]
        end_N = within_NB.cumsum(1)[rows, ids_N % _BLOCK]
        return self._before(rows, block_N) + end_N - (1 - draw_N) * mass_N, mass_N

    def locate(self, owner_S: Tensor, points_S: Tensor) -> Tensor:
        """Return the id at each point of cumulative mass: first its block, then its place there."""
        cumulative_SC = self.blocks_NC[owner_S]
        points_S = torch.minimum(points_S, cumulative_SC[:, -1] * (1 - 1e-12))
        block_S = torch.searchsorted(cumulative_SC, points_S[:, None], right=True)[:, 0]
        within_SB = self.within(owner_S, block_S).cumsum(1)
        # A block's float32 sum and its float64 one differ in the last places: stay inside the block.
        inside_S = points_S - self._before(owner_S, block_S)
        inside_S = torch.minimum(inside_S.clamp(min=0), within_SB[:, -1] * (1 - 1e-12))
        return block_S * _BLOCK + torch.searchsorted(within_SB, inside_S[:, None], right=True)[:, 0]

    def _before(self, owner_S: Tensor, block_S: Tensor) -> Tensor:
        return torch.where(block_S > 0, self.blocks_NC[owner_S, (block_S - 1).clamp(min=0)], 0.0)


def _sample(
    tail: _Tail, samples_N: Tensor, realised_ids_N: Tensor | None, draws_N4: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (position, id) of systematic samples of the tails."""
    owner_S = torch.arange(len(samples_N), device=samples_N.device).repeat_interleave(samples_N)
    number_S = _ranks(samples_N)
    step_N = tail.blocks_NC[:, -1] / samples_N.clamp(min=1)
    start_N = draws_N4[:, 2] * step_N
    if realised_ids_N is None or not len(owner_S):
        points_S = start_N[owner_S] + number_S * step_N[owner_S]
        return owner_S, tail.locate(owner_S, points_S) if len(owner_S) else owner_S
    realised_N = realised_ids_N.long()
    point_N, mass_N = tail.point(realised_N, draws_N4[:, 3])
    tailed_N = (mass_N > 0) & (samples_N > 0)
    turn_N = torch.minimum((point_N / step_N.clamp(min=1e-300)).floor(), samples_N - 1.0)
    start_N = torch.where(tailed_N, point_N - turn_N * step_N, start_N)
    ids_S = tail.locate(owner_S, start_N[owner_S] + number_S * step_N[owner_S])
    own_S = tailed_N[owner_S] & (number_S == turn_N[owner_S])
    ids_S[own_S] = realised_N[owner_S[own_S]]
    return owner_S, ids_S


def _ranks(counts_N: Tensor) -> Tensor:
    """Return 0, 1, ... within each run of the given lengths."""
    ends_N = counts_N.cumsum(0)
    total = int(ends_N[-1]) if len(ends_N) else 0
    return torch.arange(total, device=counts_N.device) - (ends_N - counts_N).repeat_interleave(
        counts_N
    )


def join(
    heads_N: Numbers,
    head_ids_H: Numbers,
    head_mass_H: Numbers,
    samples_N: Numbers,
    sample_ids_S: Numbers,
    tail_N: Numbers,
    entropy_N: Numbers,
    levels: int,
) -> SparseTargets:
    """Put head and samples of each position side by side, in natural units."""
    count_N = heads_N + samples_N
    offsets_N1 = np.concatenate([[0], np.cumsum(count_N)]).astype(np.int64)
    rows = np.arange(len(heads_N))
    head_H = offsets_N1[:-1][np.repeat(rows, heads_N)] + _ranks(torch.from_numpy(heads_N)).numpy()
    sample_S = (offsets_N1[:-1] + heads_N)[np.repeat(rows, samples_N)] + _ranks(
        torch.from_numpy(samples_N)
    ).numpy()
    ids_E = np.zeros(int(count_N.sum()), dtype=np.int32)
    weights_E = np.zeros(len(ids_E), dtype=np.float32)
    is_head_E = np.zeros(len(ids_E), dtype=np.bool_)
    ids_E[head_H], ids_E[sample_S] = head_ids_H, sample_ids_S
    is_head_E[head_H] = True
    weights_E[head_H] = head_mass_H / levels
    weights_E[sample_S] = np.repeat(tail_N / levels / np.maximum(samples_N, 1), samples_N)
    return SparseTargets(
        offsets_N1,
        ids_E,
        weights_E,
        is_head_E,
        (tail_N / levels).astype(np.float32),
        (entropy_N / ENTROPY_STEPS).astype(np.float32),
    )
