"""Pick what to keep from a budget of bytes or of error, on a pilot of dense distributions."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from limbeck.distill.store.select import grid_of, sparsify
from limbeck.distill.store.shard import encode_shard
from limbeck.distill.store.spec import StoreSpec
from limbeck.distill.targets import Document, SparseTargets, Taught
from limbeck.errors import StoreError

_LADDER = (0.6, 0.4, 0.28, 0.2, 0.14, 0.1, 0.07, 0.05, 0.035, 0.025, 0.018)
"""Mass of one tail sample, coarsest first; the head begins at 5/7 of it."""
_NOBODY = "0" * 64


def gradient_mse(targets: SparseTargets, log_probs_NV: Tensor) -> Tensor:
    """Return ||t - p||^2 of each position, float64 [N].

    For the loss KL(p || q) the gradient by the logits is q - p, so this is the squared error that the
    sparse estimate t brings into it.
    """
    owner_E = torch.from_numpy(np.repeat(np.arange(len(targets)), np.diff(targets.offsets_N1)))
    ids_E = torch.from_numpy(targets.ids_E).long()
    error_NV = log_probs_NV.exp().neg_()
    weights_E = torch.from_numpy(targets.weights_E)
    error_NV.index_put_((owner_E, ids_E), weights_E, accumulate=True)
    return torch.linalg.vecdot(error_NV, error_NV).double()


def choose(
    spec: StoreSpec, pilot: Sequence[tuple[Document, Tensor]], *, seed: int = 0
) -> StoreSpec:
    """Return the spec with its threshold, weight and samples picked to keep its budget.

    Without a budget the spec comes back as it is. The bytes are those of the pilot as a store's first
    shard, whose models have learned nothing yet: a longer store takes fewer.

    Args:
        spec: Has `bytes_per_token` or `max_gradient_mse`.
        pilot: A few documents with the float32 log-probabilities [N, V] at their loss positions.
        seed: Seeds the sampling in the trial.

    Raises:
        StoreError: A budget that no choice keeps; names the least that is possible on the pilot.
    """
    if spec.bytes_per_token is None and spec.max_gradient_mse is None:
        return spec
    if not pilot:
        raise StoreError("a store budget needs a pilot of at least one document")
    tried: list[float] = []
    best: StoreSpec | None = None
    for weight in _LADDER:
        trial = _rung(spec, weight)
        size, error = _try(trial, pilot, seed)
        if spec.bytes_per_token is not None:
            tried.append(size)
            if size <= spec.bytes_per_token:
                best = trial
        else:
            tried.append(error)
            if spec.max_gradient_mse is not None and error <= spec.max_gradient_mse:
                return trial
    if best is not None:
        return best
    asked, name = (
        (spec.bytes_per_token, "bytes_per_token")
        if spec.bytes_per_token is not None
        else (spec.max_gradient_mse, "max_gradient_mse")
    )
    raise StoreError(f"store.{name} of {asked} is below what is possible here: {min(tried):.4g}")


def _rung(spec: StoreSpec, weight: float) -> StoreSpec:
    return replace(
        spec,
        head_threshold=weight * 5 / 7,
        tail_weight=weight,
        tail_samples=math.ceil(1 / weight),
        top_k=None,
    )


def _try(
    spec: StoreSpec, pilot: Sequence[tuple[Document, Tensor]], seed: int
) -> tuple[float, float]:
    """Return bytes per loss position and mean squared error of a spec on the pilot."""
    generator = torch.Generator().manual_seed(seed)
    taught: list[Taught] = []
    errors: list[Tensor] = []
    for document, log_probs_NV in pilot:
        targets = sparsify(log_probs_NV, None, spec, generator)
        errors.append(gradient_mse(targets, log_probs_NV))
        taught.append(Taught(document, targets))
    positions = sum(len(e) for e in errors)
    if not positions:
        raise StoreError("a store budget needs a pilot with at least one loss position")
    coded = encode_shard(taught, grid_of(spec, pilot[0][1].shape[1]), _NOBODY, None)
    return len(coded.data) / positions, float(torch.cat(errors).mean())
