"""Documents packed into rows of fixed length, with attention that never leaves a document.

A row holds several documents one after the other. Each keeps the positions 0, 1, 2, ... that it would have alone
and attends to itself only, so that packing changes how fast a model reads, and nothing that it says.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from limbeck.distill.targets import Document
from limbeck.errors import RecipeError

PADDING = 0
"""Segment number of padding."""
_WINDOW = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """Documents that share a row, by their number, each with the place where it begins."""

    documents: tuple[int, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """B packed rows of T tokens.

    Loss positions are listed row by row and from left to right, which is the order of the targets of `documents`,
    one document after the other.
    """

    tokens_BT: Tensor
    """Token ids, int64; padding holds the padding token."""
    positions_BT: Tensor
    """Position within the document, int64; padding counts as a document of its own."""
    segments_BT: Tensor
    """1, 2, ... for the documents of a row, 0 for padding; int64."""
    loss_N: Tensor
    """Loss positions as indices into the flattened B x T positions, ascending, int64."""
    next_N: Tensor
    """The token that truly follows each loss position, int64."""
    documents: tuple[int, ...]
    """Numbers of the documents, in the order of the loss positions."""

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on a device."""
        return Batch(
            self.tokens_BT.to(device),
            self.positions_BT.to(device),
            self.segments_BT.to(device),
            self.loss_N.to(device),
            self.next_N.to(device),
            self.documents,
        )


def pack(
    lengths: Sequence[int], row_length: int, *, seed: int, window: int = _WINDOW
) -> tuple[Row, ...]:
    """Place every document into exactly one row.

    Documents are shuffled, taken `window` at a time and, longest first, put into the fullest row that still has
    room. A window keeps rows mixed: without it, all long documents would come together.

    Args:
        lengths: Tokens of each document, each at least 1.
        row_length: Tokens of a row.
        seed: Decides the shuffle; same seed, same rows.
        window: Documents that are placed together; larger wastes less padding.

    Raises:
        RecipeError: A document is longer than a row, or empty.
    """
    for document, length in enumerate(lengths):
        if not 0 < length <= row_length:
            raise RecipeError(
                f"train.row_length = {row_length} cannot hold document {document} of {length} tokens; "
                f"rows must be as long as the longest document ({max(lengths)}) and documents not empty"
            )
    order = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    rows: list[Row] = []
    for start in range(0, len(order), window):
        rows += _best_fit(order[start : start + window], lengths, row_length)
    return tuple(rows)


def rows_for_epoch(rows: Sequence[Row], *, seed: int, epoch: int) -> tuple[Row, ...]:
    """Return the rows in the order in which one epoch reads them; every epoch has its own."""
    order = np.random.default_rng((seed, epoch)).permutation(len(rows))
    return tuple(rows[n] for n in order.tolist())


def fill(rows: Sequence[Row], lengths: Sequence[int], row_length: int) -> float:
    """Return the share of the rows' positions that hold a document, in [0, 1]."""
    used = sum(lengths[document] for row in rows for document in row.documents)
    return used / (len(rows) * row_length) if rows else 0.0


def assemble(
    rows: Sequence[Row],
    documents: Sequence[Document],
    row_length: int,
    *,
    pad_id: int,
    pad_side: Literal["right", "left"] = "right",
) -> Batch:
    """Return the batch of some rows.

    Args:
        rows: Rows of `pack`, at least one.
        documents: All documents that `pack` saw the lengths of.
        row_length: T, as given to `pack`.
        pad_id: Token that fills what documents leave of a row; any valid id, for nothing attends to it.
        pad_side: Where the filling goes.
    """
    shape = (len(rows), row_length)
    tokens_BT = np.full(shape, pad_id, dtype=np.int64)
    positions_BT = np.zeros(shape, dtype=np.int64)
    segments_BT = np.full(shape, PADDING, dtype=np.int64)
    loss_BT = np.zeros(shape, dtype=np.bool_)
    for b, row in enumerate(rows):
        ends = [
            o + len(documents[n].tokens_T) for n, o in zip(row.documents, row.offsets, strict=True)
        ]
        shift = row_length - ends[-1] if pad_side == "left" else 0
        padding = slice(0, shift) if pad_side == "left" else slice(ends[-1], row_length)
        positions_BT[b, padding] = np.arange(padding.stop - padding.start)
        for segment, (n, offset, end) in enumerate(
            zip(row.documents, row.offsets, ends, strict=True)
        ):
            place = slice(offset + shift, end + shift)
            tokens_BT[b, place] = documents[n].tokens_T
            positions_BT[b, place] = np.arange(end - offset)
            segments_BT[b, place] = segment + 1
            loss_BT[b, place] = documents[n].loss_T
    loss_N = np.flatnonzero(loss_BT)
    return Batch(
        tokens_BT=torch.from_numpy(tokens_BT),
        positions_BT=torch.from_numpy(positions_BT),
        segments_BT=torch.from_numpy(segments_BT),
        loss_N=torch.from_numpy(loss_N),
        next_N=torch.from_numpy(tokens_BT.reshape(-1)[loss_N + 1]),
        documents=tuple(n for row in rows for n in row.documents),
    )


def attention_mask(segments_BT: Tensor, dtype: torch.dtype = torch.bool) -> Tensor:
    """Return who attends to whom: each position to itself and to the earlier ones of its own segment.

    Padding is a segment like any other, so no position is left without one to attend to, which would make its
    logits NaN. `transformers` passes a mask of four axes on to the attention as it is.

    Args:
        segments_BT: Segment of each position.
        dtype: `torch.bool` (True attends; for SDPA), or a floating type for an additive mask (0 attends, the
            type's lowest number does not; for eager attention).

    Returns:
        A mask of shape [B, 1, T, T], queries before keys.
    """
    same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    mask_B1TT = same_BTT.tril_()[:, None]
    if dtype == torch.bool:
        return mask_B1TT
    additive = torch.zeros(mask_B1TT.shape, dtype=dtype, device=segments_BT.device)
    return additive.masked_fill_(~mask_B1TT, torch.finfo(dtype).min)


def _best_fit(order: Sequence[int], lengths: Sequence[int], row_length: int) -> list[Row]:
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, row), ascending
    for document in sorted(order, key=lambda n: -lengths[n]):
        at = bisect_left(free, (lengths[document], -1))
        if at == len(free):
            rows.append([])
            room, row = row_length, len(rows) - 1
        else:
            room, row = free.pop(at)
        rows[row].append(document)
        insort(free, (room - lengths[document], row))
    return [_row(documents, lengths) for documents in rows]


def _row(documents: Sequence[int], lengths: Sequence[int]) -> Row:
    ends = np.cumsum([lengths[n] for n in documents]).tolist()
    return Row(tuple(documents), (0, *ends[:-1]))
