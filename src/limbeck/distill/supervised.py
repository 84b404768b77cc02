"""Learning from a corpus' own answers: a store of documents about which the teacher was asked nothing.

A teacher is fine-tuned with the loop that students are distilled with, so its documents take the same way: they
are written into a store, only with nothing said about them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from limbeck.distill.store import StoreSpec
from limbeck.distill.targets import Document, SparseTargets, Taught

NOTE = (
    "Supervised: the teacher was asked nothing, and the student learnt the answers that stand in the corpus "
    '(capture.targets = "none"); its distance from the teacher was measured but not trained for.'
)
"""What a reader of the report must know."""


def silent(spec: StoreSpec) -> StoreSpec:
    """Return how a store keeps documents without targets: a mass to draw from, and no draws."""
    return replace(spec, max_head=1, tail_samples=0, bytes_per_token=None, max_gradient_mse=None)


def untaught(documents: Sequence[Document], *, skip: int = 0) -> Iterator[Taught]:
    """Yield each document after the first `skip`, in the order given, with nothing said about it."""
    for document in documents[skip:]:
        yield Taught(document, nothing_said(document.positions))


def nothing_said(positions: int) -> SparseTargets:
    """Return targets that state no token: an empty head, and all of the mass in the tail.

    No divergence from them means anything. Their entropy is not known; it is written as 0.
    """
    return SparseTargets(
        offsets_N1=np.zeros(positions + 1, np.int64),
        ids_E=np.zeros(0, np.int32),
        weights_E=np.zeros(0, np.float32),
        is_head_E=np.zeros(0, np.bool_),
        tail_N=np.ones(positions, np.float32),
        entropy_N=np.zeros(positions, np.float32),
    )
