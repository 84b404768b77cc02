"""Sparse teacher distributions as tensors, for the losses."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from limbeck.distill.targets import SparseTargets


@dataclass(frozen=True, slots=True)
class Members:
    """The student's tokens whose probabilities add up to each entry's, where an entry is not one token.

    Within a position no token belongs to two entries of its head.
    """

    offsets_E1: Tensor
    """int64 on the CPU, E + 1 ascending offsets into the members; no entry is without any."""
    entry_M: Tensor
    """int64, entry of each member."""
    ids_M: Tensor
    """int64, token ids."""


@dataclass(frozen=True, slots=True)
class TorchTargets:
    """The tensors of a `SparseTargets`, with the position of every entry spelt out.

    `offsets_N1` stays on the CPU, where tiles are cut; the rest lies on the student's device.
    """

    offsets_N1: Tensor
    """int64, N + 1 ascending offsets into the entries."""
    row_E: Tensor
    """int64, position of each entry, counted from 0."""
    ids_E: Tensor
    """int64, token ids."""
    weights_E: Tensor
    """float32, the teacher's probability (head) or the sample's weight (tail)."""
    is_head_E: Tensor
    """bool."""
    tail_N: Tensor
    """float32, probability outside the head."""
    entropy_N: Tensor
    """float32, nats."""
    members: Members | None = None
    """What each entry is made of; None where `ids_E` are the student's tokens themselves."""
    ranked: bool = False
    """True where `ids_E` are ranks: 0 is whichever token the student finds likeliest."""

    def __len__(self) -> int:
        """Return N, the number of positions."""
        return len(self.tail_N)

    @classmethod
    def from_numpy(
        cls, targets: SparseTargets, device: torch.device | str = "cpu"
    ) -> "TorchTargets":
        """Copy targets onto a device."""
        counts_N = np.diff(targets.offsets_N1)
        row_E = np.repeat(np.arange(len(targets), dtype=np.int64), counts_N)
        return cls(
            offsets_N1=torch.tensor(targets.offsets_N1, dtype=torch.int64, device="cpu"),
            row_E=torch.from_numpy(row_E).to(device),
            ids_E=torch.tensor(targets.ids_E, dtype=torch.int64, device=device),
            weights_E=torch.tensor(targets.weights_E, dtype=torch.float32, device=device),
            is_head_E=torch.tensor(targets.is_head_E, dtype=torch.bool, device=device),
            tail_N=torch.tensor(targets.tail_N, dtype=torch.float32, device=device),
            entropy_N=torch.tensor(targets.entropy_N, dtype=torch.float32, device=device),
        )


def cut(targets: TorchTargets, start: int, stop: int) -> TorchTargets:
    """Return positions start..stop as views, with positions counted from `start`."""
    first, last = int(targets.offsets_N1[start]), int(targets.offsets_N1[stop])
    return TorchTargets(
        offsets_N1=targets.offsets_N1[start : stop + 1] - first,
        row_E=targets.row_E[first:last] - start,
        ids_E=targets.ids_E[first:last],
        weights_E=targets.weights_E[first:last],
        is_head_E=targets.is_head_E[first:last],
        tail_N=targets.tail_N[start:stop],
        entropy_N=targets.entropy_N[start:stop],
        members=None if targets.members is None else _cut_members(targets.members, first, last),
        ranked=targets.ranked,
    )


def _cut_members(members: Members, first: int, last: int) -> Members:
    start, stop = int(members.offsets_E1[first]), int(members.offsets_E1[last])
    return Members(
        offsets_E1=members.offsets_E1[first : last + 1] - start,
        entry_M=members.entry_M[start:stop] - first,
        ids_M=members.ids_M[start:stop],
    )


def realised(next_ids_N: Tensor) -> TorchTargets:
    """Return realised tokens as targets: one tail sample of weight 1 each; KL is cross-entropy."""
    count = len(next_ids_N)
    rows_N = torch.arange(count, device=next_ids_N.device)
    ones_N = torch.ones(count, device=next_ids_N.device)
    return TorchTargets(
        offsets_N1=torch.arange(count + 1, device="cpu"),
        row_E=rows_N,
        ids_E=next_ids_N.long(),
        weights_E=ones_N,
        is_head_E=torch.zeros_like(rows_N, dtype=torch.bool),
        tail_N=ones_N,
        entropy_N=torch.zeros_like(ones_N),
    )
