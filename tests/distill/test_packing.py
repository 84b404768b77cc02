from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from limbeck.distill.packing import Row, assemble, attention_mask, fill, pack, rows_for_epoch
from limbeck.distill.targets import Document
from limbeck.errors import RecipeError

VOCABULARY = 97
ROW = 32
LENGTHS = (20, 5, 7, 32, 11, 9, 2, 12, 16)
lengths_of_documents = st.lists(st.integers(1, 64), min_size=1, max_size=200)


def document(seed: int, length: int) -> Document:
    rng = np.random.default_rng(seed)
    loss_T = rng.random(length) < 0.7
    loss_T[-1] = False
    return Document(rng.integers(0, VOCABULARY, length, dtype=np.int32), loss_T, False, str(seed))


DOCUMENTS = [document(n, length) for n, length in enumerate(LENGTHS)]


@pytest.fixture(autouse=True)
def one_thread() -> Generator[None]:
    """Tiny models gain nothing from threads, and wait for them on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest) -> Any:
    """A Llama of two layers with random weights, wide enough that attention matters."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = transformers.LlamaForCausalLM(config).eval()
    model.set_attn_implementation(request.param)
    return model


def logits_of(model: Any, documents: Sequence[Document], rows: Sequence[Row], **how: Any) -> Any:
    """Logits of a batch, with the batch."""
    batch = assemble(rows, documents, ROW, pad_id=0, **how)
    dtype = torch.bool if model.config._attn_implementation == "sdpa" else torch.float32
    with torch.no_grad():
        logits_BTV = model(
            batch.tokens_BT,
            attention_mask=attention_mask(batch.segments_BT, dtype),
            position_ids=batch.positions_BT,
            use_cache=False,
        ).logits
    return batch, logits_BTV


# Placing documents.


@given(lengths_of_documents, st.integers(0, 9), st.sampled_from([1, 7, 1024]))
def test_every_document_lies_in_exactly_one_row_and_none_overlap(
    lengths: list[int], seed: int, window: int
):
    rows = pack(lengths, 64, seed=seed, window=window)
    assert sorted(n for row in rows for n in row.documents) == list(range(len(lengths)))
    for row in rows:
        ends = [o + lengths[n] for n, o in zip(row.documents, row.offsets, strict=True)]
        assert row.offsets[0] == 0
        assert [*row.offsets[1:]] == ends[:-1]
        assert ends[-1] <= 64


@given(lengths_of_documents)
def test_no_two_rows_of_a_window_could_have_been_one(lengths: list[int]):
    rows = pack(lengths, 64, seed=0)
    used = sorted(sum(lengths[n] for n in row.documents) for row in rows)
    assert all(first + second > 64 for first, second in pairwise(used))


def test_the_seed_decides_the_rows():
    lengths = [document_length % 30 + 1 for document_length in range(100)]
    assert pack(lengths, 64, seed=3) == pack(lengths, 64, seed=3)
    assert pack(lengths, 64, seed=3, window=10) != pack(lengths, 64, seed=4, window=10)


def test_packing_wastes_little_and_less_than_one_document_a_row():
    lengths = np.random.default_rng(0).integers(20, 400, 2_000).tolist()
    packed = fill(pack(lengths, 512, seed=0), lengths, 512)
    alone = fill([Row((n,), (0,)) for n in range(2_000)], lengths, 512)
    assert packed > 0.97 > 2 * alone > 0.8


def test_rows_too_short_for_the_longest_document_are_an_error():
    with pytest.raises(
        RecipeError, match=r"row_length = 32 cannot hold .* longest document \(40\)"
    ):
        pack([10, 33, 40], 32, seed=0)


def test_an_empty_document_is_an_error():
    with pytest.raises(RecipeError, match="document 1 of 0 tokens"):
        pack([10, 0], 32, seed=0)


def test_every_epoch_reads_every_row_in_an_order_of_its_own():
    rows = pack([20] * 50, 32, seed=0)
    first, second = (rows_for_epoch(rows, seed=7, epoch=epoch) for epoch in (0, 1))
    assert set(first) == set(second) == set(rows)
    assert first != second
    assert first == rows_for_epoch(rows, seed=7, epoch=0)
    assert first != rows_for_epoch(rows, seed=8, epoch=0)


# Assembling a batch.


@pytest.mark.parametrize("side", ["left", "right"])
def test_loss_positions_come_in_the_order_of_the_documents_targets(side: Literal["left", "right"]):
    rows = pack(LENGTHS, ROW, seed=1)
    batch = assemble(rows, DOCUMENTS, ROW, pad_id=0, pad_side=side)
    parts = [DOCUMENTS[n] for n in batch.documents]
    at = [np.flatnonzero(d.loss_T) for d in parts]
    asked = np.concatenate([d.tokens_T[t] for d, t in zip(parts, at, strict=True)])
    answers = np.concatenate([d.tokens_T[t + 1] for d, t in zip(parts, at, strict=True)])
    assert batch.tokens_BT.flatten()[batch.loss_N].tolist() == asked.tolist()
    assert batch.next_N.tolist() == answers.tolist()
    assert bool((batch.loss_N.diff() > 0).all())


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_start_anew_in_every_document(side: Literal["left", "right"]):
    rows = pack(LENGTHS, ROW, seed=1)
    batch = assemble(rows, DOCUMENTS, ROW, pad_id=3, pad_side=side)
    for b, row in enumerate(rows):
        for segment, n in enumerate(row.documents, start=1):
            here = batch.segments_BT[b] == segment
            assert batch.positions_BT[b][here].tolist() == list(range(LENGTHS[n]))
            assert batch.tokens_BT[b][here].tolist() == DOCUMENTS[n].tokens_T.tolist()
        assert set(batch.tokens_BT[b][batch.segments_BT[b] == 0].tolist()) <= {3}


def test_a_moved_batch_is_the_same_batch():
    batch = assemble(pack(LENGTHS, ROW, seed=1), DOCUMENTS, ROW, pad_id=0)
    moved = batch.to("cpu")
    assert moved.documents == batch.documents
    assert torch.equal(moved.loss_N, batch.loss_N)
    assert batch.to("meta").tokens_BT.device.type == "meta"


# Attention.


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_the_mask_is_causal_and_stays_within_segments(segments: list[int]):
    mask = attention_mask(torch.tensor([segments]))
    size = len(segments)
    assert mask.shape == (1, 1, size, size)
    for query in range(size):
        for key in range(size):
            expected = key <= query and segments[key] == segments[query]
            assert bool(mask[0, 0, query, key]) == expected


def test_an_additive_mask_says_the_same_as_a_boolean_one():
    segments_BT = torch.tensor([[1, 1, 2, 0], [1, 2, 2, 2]])
    for dtype in (torch.float32, torch.bfloat16):
        additive = attention_mask(segments_BT, dtype)
        assert additive.dtype == dtype
        assert torch.equal(additive == 0, attention_mask(segments_BT))
        assert additive.min() == torch.finfo(dtype).min


def test_packed_documents_have_the_logits_that_each_has_alone(model: Any):
    rows = pack(LENGTHS, ROW, seed=1)
    assert max(len(row.documents) for row in rows) > 2
    _, logits_BTV = logits_of(model, DOCUMENTS, rows)
    for b, row in enumerate(rows):
        for n, offset in zip(row.documents, row.offsets, strict=True):
            tokens_BT = torch.from_numpy(DOCUMENTS[n].tokens_T).long()[None]
            with torch.no_grad():
                alone_TV = model(tokens_BT, use_cache=False).logits[0]
            packed_TV = logits_BTV[b, offset : offset + LENGTHS[n]]
            torch.testing.assert_close(packed_TV, alone_TV, atol=1e-5, rtol=1e-5)


def test_without_the_mask_documents_would_leak_into_each_other(model: Any):
    rows = pack(LENGTHS, ROW, seed=1)
    batch, logits_BTV = logits_of(model, DOCUMENTS, rows)
    with torch.no_grad():
        leaking_BTV = model(
            batch.tokens_BT,
            attention_mask=torch.ones_like(batch.tokens_BT),
            position_ids=batch.positions_BT,
            use_cache=False,
        ).logits
    later_BT = batch.segments_BT > 1
    assert (leaking_BTV - logits_BTV)[later_BT].abs().max() > 0.1


def test_changing_one_document_leaves_every_other_bit_as_it_was(model: Any):
    rows = pack(LENGTHS, ROW, seed=1)
    changed = rows[-1].documents[0]
    others = [document(n + (100 if n == changed else 0), LENGTHS[n]) for n in range(len(LENGTHS))]
    batch, before_BTV = logits_of(model, DOCUMENTS, rows)
    _, after_BTV = logits_of(model, others, rows)
    mine_BT = torch.zeros(len(rows), ROW, dtype=torch.bool)
    mine_BT[-1] = batch.segments_BT[-1] == 1
    assert len(rows[-1].documents) > 1
    assert not torch.equal(before_BTV[mine_BT], after_BTV[mine_BT])
    assert torch.equal(before_BTV[~mine_BT], after_BTV[~mine_BT])


def test_the_padding_side_does_not_change_logits_at_loss_positions(model: Any):
    rows = pack(LENGTHS, ROW, seed=1)
    right, right_BTV = logits_of(model, DOCUMENTS, rows)
    left, left_BTV = logits_of(model, DOCUMENTS, rows, pad_side="left")
    assert not torch.equal(right.loss_N, left.loss_N)
    assert torch.equal(right.next_N, left.next_N)
    torch.testing.assert_close(
        right_BTV.flatten(0, 1)[right.loss_N],
        left_BTV.flatten(0, 1)[left.loss_N],
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_yields_nan(model: Any, side: Literal["left", "right"]):
    nearly_empty = [document(0, 1)]
    batch, logits_BTV = logits_of(model, nearly_empty, [Row((0,), (0,))], pad_side=side)
    assert int((batch.segments_BT == 0).sum()) == ROW - 1
    assert bool(logits_BTV.isfinite().all())
    assert len(batch.loss_N) == 0


def test_padding_gets_no_gradient(model: Any):
    rows = [Row((4, 6), (0, 11))]
    batch = assemble(rows, DOCUMENTS, ROW, pad_id=0)
    embedded_BTD = model.get_input_embeddings()(batch.tokens_BT).detach().requires_grad_()
    dtype = torch.bool if model.config._attn_implementation == "sdpa" else torch.float32
    logits_BTV = model(
        inputs_embeds=embedded_BTD,
        attention_mask=attention_mask(batch.segments_BT, dtype),
        position_ids=batch.positions_BT,
        use_cache=False,
    ).logits
    logits_NV = logits_BTV.flatten(0, 1)[batch.loss_N]
    torch.nn.functional.cross_entropy(logits_NV, batch.next_N).backward()
    gradient_BT = embedded_BTD.grad.abs().sum(-1)
    assert bool((gradient_BT[batch.segments_BT == 0] == 0).all())
    assert bool(gradient_BT.isfinite().all())
    assert bool((gradient_BT.flatten()[batch.loss_N] > 0).all())
