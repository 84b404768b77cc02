"""Documents about which the teacher was asked nothing."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.distill.store import StoreReader, StoreSpec, StoreWriter, describe
from limbeck.distill.supervised import nothing_said, silent, untaught
from limbeck.distill.targets import Document, concatenate


@given(st.lists(st.integers(0, 40), max_size=5))
def test_nothing_is_said_at_every_position_and_all_of_the_mass_is_tail(counts: list[int]) -> None:
    targets = concatenate([nothing_said(count) for count in counts])
    assert len(targets) == sum(counts)
    assert len(targets.ids_E) == 0
    assert np.array_equal(targets.offsets_N1, np.zeros(sum(counts) + 1))
    assert np.array_equal(targets.tail_N, np.ones(sum(counts)))


@pytest.mark.parametrize("spec", [StoreSpec(), StoreSpec(bytes_per_token=2.0, max_head=3)])
def test_a_store_keeps_documents_without_targets_as_they_are(
    tiny_documents: list[Document], tmp_path: Path, spec: StoreSpec
) -> None:
    with StoreWriter(
        tmp_path / "store", silent(spec), vocabulary=400, tokenizer_sha256="0" * 64, teacher={}
    ) as writer:
        for taught in untaught(tiny_documents):
            writer.append(taught)
    read = list(StoreReader(tmp_path / "store").documents())
    assert [r.document.key for r in read] == [d.key for d in tiny_documents]
    for found, document in zip(read, tiny_documents, strict=True):
        assert np.array_equal(found.document.tokens_T, document.tokens_T)
        assert np.array_equal(found.document.loss_T, document.loss_T)
        assert len(found.targets) == document.positions
        assert np.array_equal(found.targets.tail_N, np.ones(document.positions))
        assert len(found.targets.ids_E) == 0
    figures = describe(tmp_path / "store")
    assert figures["head_entries"] == figures["samples"] == 0


def test_what_is_written_already_is_skipped(tiny_documents: list[Document]) -> None:
    rest = list(untaught(tiny_documents, skip=5))
    assert [t.document.key for t in rest] == [d.key for d in tiny_documents[5:]]
