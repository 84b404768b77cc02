"""A tiny teacher and what it said about a few texts, made for real."""

from pathlib import Path

import numpy as np
import pytest

from limbeck.backends import load
from limbeck.distill.capture import capture_documents, capture_order
from limbeck.distill.store import StoreSpec
from limbeck.distill.targets import Document, Taught
from limbeck.model import LocalModel

TEXTS = 24


@pytest.fixture(scope="session")
def tiny_teacher(tiny_teacher_folder: Path) -> LocalModel:
    """The tiny teacher, loaded; read it, never train it."""
    return load(str(tiny_teacher_folder), dtype="float32")


@pytest.fixture(scope="session")
def tiny_documents(tiny_teacher: LocalModel) -> list[Document]:
    """Seeded token sequences of different lengths, their first three tokens a prompt."""
    rng = np.random.default_rng(5)
    vocabulary = tiny_teacher.model.config.vocab_size
    documents: list[Document] = []
    for number in range(TEXTS):
        tokens_T = rng.integers(3, vocabulary, rng.integers(8, 30)).astype(np.int32)
        loss_T = np.ones(len(tokens_T), dtype=np.bool_)
        loss_T[[0, 1, -1]] = False
        documents.append(Document(tokens_T, loss_T, number % 6 == 0, f"{number:064x}"))
    return documents


@pytest.fixture(scope="session")
def tiny_taught(tiny_teacher: LocalModel, tiny_documents: list[Document]) -> list[Taught]:
    """What the tiny teacher said at every loss position."""
    spec = StoreSpec()
    ordered = capture_order(tiny_documents)
    return list(capture_documents(tiny_teacher, ordered, spec, batch_tokens=128, seed=0))
