"""Targets over labels, made ready for a student's logits: which of its tokens add up to each label."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from limbeck.distill.labels import StudentLabels
from limbeck.distill.targets import Bools, Ids, Ints, SparseTargets
from limbeck.distill.torch_targets import Members, TorchTargets


@dataclass(frozen=True, slots=True)
class Grouping:
    """How targets that were captured across tokenizers become those of a student's logits."""

    labels: StudentLabels
    method: Literal["chunks", "uld"]

    def __call__(
        self, targets: SparseTargets, realised_N: Ids, device: torch.device | str
    ) -> TorchTargets:
        """Return the targets on a device, given the student's realised token at each position."""
        if self.method == "uld":
            return ranked(targets, self.labels, device)
        return grouped(targets, realised_N, self.labels, device)


def grouped(
    targets: SparseTargets,
    realised_N: Ids,
    labels: StudentLabels,
    device: torch.device | str = "cpu",
) -> TorchTargets:
    """Return targets over labels with the student's tokens that each entry is made of.

    What REST stands for is unsaid: it becomes part of the tail, without samples. So does a label that none of the
    student's tokens counts for once the realised one has been taken out of it.

    Args:
        targets: Ids are those of `labels`.
        realised_N: The student's realised token at each position; it decides what REALISED and BEGUN hold.
        labels: Of the student's vocabulary.
        device: Where the student lies.
    """
    row_E = np.repeat(np.arange(len(targets)), np.diff(targets.offsets_N1))
    entry_M, ids_M = _members(targets.ids_E.astype(np.int64), realised_N[row_E], labels)
    gone_E = (np.bincount(entry_M, minlength=len(row_E)) == 0) | _unsaid(targets, row_E, labels)
    kept = _without(targets, row_E, gone_E)
    stays_M = ~gone_E[entry_M]
    entry_M, ids_M = (np.cumsum(~gone_E) - 1)[entry_M[stays_M]], ids_M[stays_M]
    counts_E = np.bincount(entry_M, minlength=len(kept.ids_E))
    plain = TorchTargets.from_numpy(kept, device)
    offsets_E1 = np.concatenate([[0], np.cumsum(counts_E)])
    return replace(
        plain,
        members=Members(
            offsets_E1=torch.from_numpy(offsets_E1.astype(np.int64)),
            entry_M=torch.from_numpy(entry_M).to(device),
            ids_M=torch.from_numpy(ids_M).to(device),
        ),
    )


def ranked(
    targets: SparseTargets, labels: StudentLabels, device: torch.device | str = "cpu"
) -> TorchTargets:
    """Return targets whose ids are ranks; positions of which nothing is said become tail alone.

    Args:
        targets: The probability of the likeliest token is that of id 0, and so on; REST is unsaid.
        labels: Of the student's vocabulary.
        device: Where the student lies.
    """
    row_E = np.repeat(np.arange(len(targets)), np.diff(targets.offsets_N1))
    kept = _without(targets, row_E, (targets.ids_E == labels.rest) | ~targets.is_head_E)
    return replace(TorchTargets.from_numpy(kept, device), ranked=True)


def label_sums(probs_RV: Tensor, realised_R: Ids, labels: StudentLabels) -> Tensor:
    """Return a student's probability of every label, [R, labels.size]; REALISED is taken out of its label.

    Args:
        probs_RV: Probabilities of its tokens.
        realised_R: Its realised token in each row.
        labels: Of its vocabulary.
    """
    sums_RL = probs_RV.new_zeros(len(probs_RV), labels.size)
    sums_RL.index_add_(1, torch.from_numpy(labels.label_V).to(probs_RV.device), probs_RV)
    for row in np.flatnonzero(labels.is_split(realised_R)).tolist():
        token = int(realised_R[row])
        label = int(labels.label_V[token])
        extending = labels.order_V[labels.first_V[token] : labels.stop_V[token]]
        own = torch.from_numpy(extending[labels.label_V[extending] == label])
        mass = probs_RV[row, own.to(probs_RV.device)].sum()
        sums_RL[row, label] -= mass
        sums_RL[row, labels.realised] += mass
    return sums_RL.clamp_(min=0)


def _unsaid(targets: SparseTargets, row_E: Ints, labels: StudentLabels) -> Bools:
    """Tell which entries are samples of what a position in whose head REST lies says nothing of."""
    is_silent_N = np.zeros(len(targets), dtype=np.bool_)
    is_silent_N[row_E[(targets.ids_E == labels.rest) & targets.is_head_E]] = True
    return is_silent_N[row_E] & ~targets.is_head_E


def _members(ids_E: Ints, realised_E: Ids, labels: StudentLabels) -> tuple[Ints, Ints]:
    """Return (entry, token) of what each entry is made of, by entry."""
    order_V, (by_label, offsets) = labels.order_V, labels.members
    is_begun_E = ids_E == labels.begun
    asked_E = np.where(ids_E == labels.realised, labels.label_V[realised_E], ids_E)
    # BEGUN takes a stretch of the ids in the order of their bytes, the others a stretch of those by label.
    first_E = np.where(is_begun_E, labels.first_V[realised_E], offsets[asked_E])
    stop_E = np.where(is_begun_E, labels.stop_V[realised_E], offsets[asked_E + 1])
    entry_M, place_M = _stretches(first_E, stop_E)
    ids_M = np.where(is_begun_E[entry_M], order_V[place_M], by_label[place_M])
    kept_M = _belongs(entry_M, ids_M, ids_E, realised_E, labels)
    return entry_M[kept_M], ids_M[kept_M]


def _belongs(
    entry_M: Ints, ids_M: Ints, ids_E: Ints, realised_E: Ids, labels: StudentLabels
) -> Bools:
    """Tell of a label's tokens whether they are in it once REALISED has been taken out of it."""
    token_M = realised_E[entry_M]
    rank_M = labels.rank_V[ids_M]
    extends_M = (labels.first_V[token_M] <= rank_M) & (rank_M < labels.stop_V[token_M])
    takes_E = ids_E == labels.realised
    gives_E = labels.is_split(realised_E) & (ids_E == labels.label_V[realised_E])
    return np.where(takes_E[entry_M], extends_M, ~(gives_E[entry_M] & extends_M))


def _stretches(first_E: Ints, stop_E: Ints) -> tuple[Ints, Ints]:
    """Return (entry, number) for every number from first to stop of each entry."""
    counts_E = stop_E - first_E
    entry_M = np.repeat(np.arange(len(counts_E)), counts_E)
    starts_E = np.cumsum(counts_E) - counts_E
    return entry_M, np.arange(len(entry_M)) - starts_E[entry_M] + first_E[entry_M]


def _without(targets: SparseTargets, row_E: Ints, gone_E: Bools) -> SparseTargets:
    """Drop entries; the mass of those in a head goes to the tail."""
    kept_E = ~gone_E
    lost_N = np.bincount(
        row_E, weights=targets.weights_E * (gone_E & targets.is_head_E), minlength=len(targets)
    )
    counts_N = np.bincount(row_E[kept_E], minlength=len(targets))
    return SparseTargets(
        offsets_N1=np.concatenate([[0], np.cumsum(counts_N)]).astype(np.int64),
        ids_E=targets.ids_E[kept_E],
        weights_E=targets.weights_E[kept_E],
        is_head_E=targets.is_head_E[kept_E],
        tail_N=(targets.tail_N + lost_N).astype(np.float32),
        entropy_N=targets.entropy_N,
    )
