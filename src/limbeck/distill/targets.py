"""What a teacher said at each loss position, sparse.

A dense distribution over a vocabulary of 49,152 takes 197 kB a position, so a store keeps less: the most
likely tokens with their exact probability (the *head*), the mass of everything else (the *tail*), and,
where the codec draws them, a few tail tokens chosen at random, each with a weight such that

    E[ sum over samples of weight * indicator(token) ] = p(token)   for every token outside the head.

The tail mass is never renormalised away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SparseTargets:
    """Sparse teacher distributions of N positions, ragged, in natural units (probabilities, nats).

    Entries of position n lie at `offsets_N1[n]:offsets_N1[n + 1]`; within a position the head comes first.
    """

    offsets_N1: Ints
    """N + 1 ascending offsets into the entries."""
    ids_E: Ids
    """Token ids; distinct within the head of a position. A sampled token never lies in the head."""
    weights_E: Floats
    """Head: the teacher's probability. Sample: its weight; the samples of a position sum to its tail mass."""
    is_head_E: Bools
    """True for exact head entries, False for tail samples."""
    tail_N: Floats
    """Probability outside the head, in [0, 1]."""
    entropy_N: Floats
    """Entropy of the teacher's full distribution, in nats."""

    def __len__(self) -> int:
        """Return N, the number of positions."""
        return len(self.tail_N)


@dataclass(frozen=True, slots=True)
class Document:
    """A tokenised text with its loss positions."""

    tokens_T: Ids
    """Token ids, prompt and answer together."""
    loss_T: Bools
    """True at loss positions; the last position has no next token, so it is always False."""
    heldout: bool
    """Kept out of training, for evaluation."""
    key: str
    """Hash of the content that decided the split; stable across runs."""

    @property
    def positions(self) -> int:
        """Number of loss positions."""
        return int(self.loss_T.sum())


@dataclass(frozen=True, slots=True)
class Taught:
    """A document with what the teacher said at its loss positions, in order."""

    document: Document
    targets: SparseTargets


def concatenate(parts: Sequence[SparseTargets]) -> SparseTargets:
    """Return the positions of all parts in order; no parts make targets of no positions."""
    counts = [np.diff(part.offsets_N1) for part in parts]
    return SparseTargets(
        offsets_N1=_offsets(np.concatenate([np.zeros(0, np.int64), *counts])),
        ids_E=np.concatenate([np.zeros(0, np.int32), *(part.ids_E for part in parts)]),
        weights_E=np.concatenate([np.zeros(0, np.float32), *(part.weights_E for part in parts)]),
        is_head_E=np.concatenate([np.zeros(0, np.bool_), *(part.is_head_E for part in parts)]),
        tail_N=np.concatenate([np.zeros(0, np.float32), *(part.tail_N for part in parts)]),
        entropy_N=np.concatenate([np.zeros(0, np.float32), *(part.entropy_N for part in parts)]),
    )


def select(targets: SparseTargets, positions: npt.NDArray[np.integer]) -> SparseTargets:
    """Return the given positions in the given order; an index may come more than once.

    Raises:
        IndexError: An index outside [-N, N).
    """
    starts_N = targets.offsets_N1[:-1][positions]
    offsets_N1 = _offsets(np.diff(targets.offsets_N1)[positions])
    shifts_N = starts_N - offsets_N1[:-1]
    entries_E = np.arange(offsets_N1[-1]) + np.repeat(shifts_N, np.diff(offsets_N1))
    return SparseTargets(
        offsets_N1=offsets_N1,
        ids_E=targets.ids_E[entries_E],
        weights_E=targets.weights_E[entries_E],
        is_head_E=targets.is_head_E[entries_E],
        tail_N=targets.tail_N[positions],
        entropy_N=targets.entropy_N[positions],
    )


def _offsets(counts_N: Ints) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts_N, dtype=np.int64)])
