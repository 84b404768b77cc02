"""A shard's bytes are those of format version 1, and reading them is fast enough for training."""

import hashlib
import time

import numpy as np
import pytest

from limbeck.distill.store.codec import Grid
from limbeck.distill.store.shard import Prior, decode_shard, encode_shard
from limbeck.distill.targets import Document, SparseTargets, Taught

GRID = Grid(vocabulary=1000, levels=64, max_head=4, tail_samples=3, tail_weight=0.25)
IDENTITY = "00" * 32


def _taught(positions: int, seed: int) -> Taught:
    """Return a document with one head entry of 48/64 and two samples everywhere, from integers alone."""
    ids = (np.arange(positions * 3, dtype=np.int64) * 7919 + seed * 104_729) % 1000
    ids_E = (ids // np.tile([1, 2, 3], positions)).astype(np.int32)
    ids_E[0::3] = (ids_E[1::3] + 1 + (ids_E[1::3] + 1 == ids_E[2::3])) % 1000
    ids_E[1::3], ids_E[2::3] = (
        np.minimum(ids_E[1::3], ids_E[2::3]),
        np.maximum(ids_E[1::3], ids_E[2::3]),
    )
    targets = SparseTargets(
        np.arange(positions + 1, dtype=np.int64) * 3,
        ids_E,
        np.tile(np.array([0.75, 0.125, 0.125], dtype=np.float32), positions),
        np.tile([True, False, False], positions),
        np.full(positions, 0.25, dtype=np.float32),
        (np.arange(positions) % 90 / 16).astype(np.float32),
    )
    tokens_T = (np.arange(positions + 1, dtype=np.int64) ** 2 * 31 + seed) % 1000
    loss_T = np.arange(positions + 1) < positions
    return Taught(Document(tokens_T.astype(np.int32), loss_T, False, f"{seed:04x}"), targets)


def test_the_bytes_of_version_one_do_not_change() -> None:
    """A change of these hashes is a change of the format: raise the version instead."""
    taught = [_taught(150 + 10 * i, i) for i in range(6)]
    first = encode_shard(taught, GRID, IDENTITY, None)
    prior = Prior(first.model, hashlib.sha256(first.data).hexdigest())
    second = encode_shard(taught[::-1], GRID, IDENTITY, prior)
    assert prior.sha256[:16] == "ea9d66c93cd6723a"
    assert hashlib.sha256(second.data).hexdigest()[:16] == "47c3e9c2f4ba6cc2"
    assert len(second.data) < 0.8 * len(first.data)
    again, _ = decode_shard(second.data, "second", GRID, IDENTITY, prior)
    for one, other in zip(taught[::-1], again, strict=True):
        np.testing.assert_array_equal(one.targets.ids_E, other.targets.ids_E)
        np.testing.assert_array_equal(one.targets.weights_E, other.targets.weights_E)
        np.testing.assert_array_equal(one.document.tokens_T, other.document.tokens_T)


@pytest.mark.slow
def test_decoding_keeps_ahead_of_training() -> None:
    """Far below the measured rate, for slow and busy machines; no loop over positions passes it."""
    taught = [_taught(2000, i) for i in range(12)]
    data = encode_shard(taught, GRID, IDENTITY, None).data
    best = 0.0
    for _ in range(3):
        started = time.process_time()
        decode_shard(data, "x", GRID, IDENTITY, None)
        best = max(best, 24_000 / (time.process_time() - started))
    assert best > 40_000
