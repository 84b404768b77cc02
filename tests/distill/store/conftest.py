"""Small made-up distributions, and documents that carry their sparse form."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck.distill.store import StoreSpec, sparsify
from limbeck.distill.targets import Document, Taught

VOCABULARY = 601
"""Not a multiple of the block that `sparsify` reads at once."""


def log_probs(positions: int, seed: int, vocabulary: int = VOCABULARY) -> Tensor:
    """Return peaked and flat distributions side by side, float32 [positions, vocabulary]."""
    generator = torch.Generator().manual_seed(seed)
    scale_N1 = torch.linspace(0.5, 6.0, max(positions, 1))[:positions, None]
    noise_NV = torch.randn(positions, vocabulary, generator=generator)
    return torch.log_softmax(noise_NV * scale_N1, dim=-1)


def document(length: int, seed: int, vocabulary: int = VOCABULARY) -> Document:
    """Return a document with a prompt of a third of its length."""
    tokens_T = np.random.default_rng(seed).integers(0, vocabulary, length).astype(np.int32)
    loss_T = np.arange(length) >= length // 3
    loss_T[-1] = False
    key = hashlib.sha256(tokens_T.tobytes()).hexdigest()
    return Document(tokens_T, loss_T, seed % 3 == 0, key)


def taught(length: int, seed: int, spec: StoreSpec) -> Taught:
    """Return a document with targets."""
    made = document(length, seed)
    generator = torch.Generator().manual_seed(seed)
    return Taught(made, sparsify(log_probs(made.positions, seed), None, spec, generator))


@pytest.fixture
def make_taught() -> Callable[[int, StoreSpec], list[Taught]]:
    """Return a function that makes so many documents of mixed lengths."""
    return lambda count, spec: [taught(20 + 7 * (i % 5), i, spec) for i in range(count)]
