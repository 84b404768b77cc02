"""What a smaller vocabulary makes of text and targets."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.distill.fused import fused_sparse_loss
from limbeck.distill.objective import LossSpec
from limbeck.distill.store import StoreSpec, sparsify
from limbeck.distill.targets import Document, SparseTargets, Taught
from limbeck.distill.torch_targets import TorchTargets
from limbeck.distill.vocabulary import (
    Vocabulary,
    choose_tokens,
    coverage,
    lessons,
    narrowed_targets,
    read_vocabulary,
    respelled,
    said,
    trim_notes,
    write_vocabulary,
)
from limbeck.errors import RecipeError

TOKENS = 40
SPEC = StoreSpec(head_threshold=0.15, tail_weight=0.2, tail_samples=5, max_head=4)


def of(kept: Iterable[int]) -> Vocabulary:
    """Return a vocabulary that spells each trimmed token as two of its first token."""
    ids = sorted(set(kept))
    spelling = {i: (0, 0) for i in range(TOKENS) if i not in ids}
    return Vocabulary(np.array(ids, dtype=np.int64), TOKENS, spelling)


def document(tokens: list[int]) -> Document:
    loss_T = np.ones(len(tokens), np.bool_)
    loss_T[-1] = False
    return Document(np.array(tokens, np.int32), loss_T, heldout=False, key="k")


def law(seed: int, positions: int, sharp: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(positions, TOKENS, generator=generator) * sharp).log_softmax(-1)


def heard(log_p_NV: Tensor, seed: int) -> SparseTargets:
    return sparsify(log_p_NV, None, SPEC, torch.Generator().manual_seed(seed))


SOME = st.sets(st.integers(0, TOKENS - 1), min_size=1)


@given(kept=SOME, ids=st.lists(st.integers(0, TOKENS - 1)))
def test_numbers_are_ranks_among_the_kept(kept: set[int], ids: list[int]) -> None:
    vocabulary = of(kept)
    held = vocabulary.holds(np.array(ids, dtype=np.int64))
    assert held.tolist() == [i in kept for i in ids]
    inside = np.array([i for i in ids if i in kept], dtype=np.int64)
    numbers = vocabulary.number(inside)
    assert vocabulary.kept_K[numbers].tolist() == inside.tolist()


def test_a_token_that_is_not_kept_has_no_number() -> None:
    with pytest.raises(KeyError, match="token 3"):
        of({1, 2}).number(np.array([1, 3]))


@given(kept=SOME, tokens=st.lists(st.integers(0, TOKENS - 1), min_size=2), data=st.data())
def test_a_respelled_document_keeps_every_loss_position_where_a_teachers_token_ends(
    kept: set[int], tokens: list[int], data: st.DataObject
) -> None:
    flags = data.draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))
    loss_T = np.array([*flags[:-1], False])
    before = Document(np.array(tokens, np.int32), loss_T, heldout=True, key="k")
    after = respelled(before, vocabulary := of(kept))
    assert after.positions == before.positions
    assert (after.heldout, after.key, after.tokens_T.dtype) == (True, "k", np.int32)
    assert not after.loss_T[-1]
    assert after.tokens_T.tolist() == vocabulary.spell(tokens)
    for ours, theirs in zip(
        np.flatnonzero(after.loss_T), np.flatnonzero(before.loss_T), strict=True
    ):
        assert vocabulary.spell(tokens[: theirs + 1]) == after.tokens_T[: ours + 1].tolist()


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), kept=SOME)
def test_narrowed_targets_hold_what_is_kept_of_each_position(seed: int, kept: set[int]) -> None:
    before = heard(law(seed, 4), seed)
    after = narrowed_targets(before, vocabulary := of(kept))
    assert len(after) == len(before)
    for n in range(len(before)):
        old = slice(before.offsets_N1[n], before.offsets_N1[n + 1])
        new = slice(after.offsets_N1[n], after.offsets_N1[n + 1])
        held = vocabulary.holds(before.ids_E[old])
        assert vocabulary.kept_K[after.ids_E[new]].tolist() == before.ids_E[old][held].tolist()
        assert after.weights_E[new].tolist() == before.weights_E[old][held].tolist()
        assert after.is_head_E[new].tolist() == before.is_head_E[old][held].tolist()
        samples = ~before.is_head_E[old]
        if samples.any():  # the samples of a position sum to its tail, as before
            ours = after.weights_E[new][~after.is_head_E[new]].sum()
            assert after.tail_N[n] == pytest.approx(ours, abs=1e-6)
        else:
            assert after.tail_N[n] == before.tail_N[n]
        assert 0 <= after.entropy_N[n] <= before.entropy_N[n]


def test_keeping_everything_changes_nothing() -> None:
    before = heard(law(0, 6), 0)
    after = narrowed_targets(before, of(range(TOKENS)))
    for name in SparseTargets.__slots__:
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), atol=1e-6)


def test_the_gradient_is_on_average_that_of_the_dense_divergence() -> None:
    """(1 - lost) q - p over the kept tokens: what the head of `vocabulary` states, as autograd has it."""
    kept = sorted({0, 3, 4, 8, 9, 15, 16, 20, 21, 22, 30, 37})
    # Flat enough that every position draws samples: an undrawn tail is a bucket, and not unbiased.
    log_p_NV, vocabulary = law(1, 3, sharp=1.0), of(kept)
    z_NK = torch.randn(3, len(kept), generator=torch.Generator().manual_seed(2)).double()
    dense = z_NK.clone().requires_grad_()
    p_log = log_p_NV[:, kept].double()
    left_N = p_log.exp().sum(-1)
    kl_N = (p_log.exp() * (p_log - left_N.log()[:, None] - dense.log_softmax(-1))).sum(-1)
    assert (kl_N >= 0).all()
    kl_N.sum().backward()
    assert dense.grad is not None

    rounds = 20_000
    many = heard(log_p_NV.repeat(rounds, 1), 5)
    has_sample_N = np.zeros(len(many), np.bool_)
    has_sample_N[np.repeat(np.arange(len(many)), np.diff(many.offsets_N1))[~many.is_head_E]] = True
    assert has_sample_N.all()
    hidden = z_NK.repeat(rounds, 1).requires_grad_()
    targets = TorchTargets.from_numpy(narrowed_targets(many, vocabulary))
    identity = torch.eye(len(kept), dtype=torch.float64)
    fused_sparse_loss(hidden, identity, targets, None, LossSpec(), 1).backward()
    assert hidden.grad is not None
    mean_NK = hidden.grad.unflatten(0, (rounds, 3)).mean(0)
    torch.testing.assert_close(mean_NK, dense.grad, atol=0.005, rtol=0)


def test_the_teacher_given_the_kept_tokens_has_no_gradient() -> None:
    kept = [1, 2, 7, 30, 31]
    log_p_NV = law(3, 4)
    targets = SparseTargets(
        offsets_N1=np.arange(5, dtype=np.int64) * TOKENS,
        ids_E=np.tile(np.arange(TOKENS, dtype=np.int32), 4),
        weights_E=log_p_NV.exp().flatten().numpy(),
        is_head_E=np.ones(4 * TOKENS, np.bool_),
        tail_N=np.zeros(4, np.float32),
        entropy_N=torch.special.entr(log_p_NV.exp()).sum(-1).numpy(),
    )
    hidden = log_p_NV[:, kept].double().requires_grad_()
    narrowed = TorchTargets.from_numpy(narrowed_targets(targets, of(kept)))
    identity = torch.eye(len(kept), dtype=torch.float64)
    fused_sparse_loss(hidden, identity, narrowed, None, LossSpec(), 1).backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().max() < 1e-6


def test_a_position_whose_every_sample_was_trimmed_keeps_no_bucket() -> None:
    targets = SparseTargets(
        offsets_N1=np.array([0, 2, 3]),
        ids_E=np.array([4, 5, 4], np.int32),
        weights_E=np.array([0.6, 0.4, 0.9], np.float32),
        is_head_E=np.array([True, False, True]),
        tail_N=np.array([0.4, 0.1], np.float32),
        entropy_N=np.array([1.0, 0.5], np.float32),
    )
    after = narrowed_targets(targets, of({4}))
    assert after.tail_N.tolist() == [0.0, pytest.approx(0.1)]


def test_documents_with_a_trimmed_token_are_read_in_pieces_and_counted() -> None:
    texts = [document([1, 2, 1]), document([1, 3, 2, 3]), document([2, 2])]
    taught = [Taught(d, heard(law(i, d.positions), i)) for i, d in enumerate(texts)]
    vocabulary = of({1, 2})
    read = list(lessons(taught, vocabulary, row_length=6))
    assert [t.document.tokens_T.tolist() for t in read] == [[0, 1, 0], [0, 0, 0, 1, 0, 0], [1, 1]]
    assert [len(t.targets) for t in read] == [t.document.positions for t in read]
    assert len(list(lessons(taught, vocabulary, row_length=5))) == 2
    counted = coverage(texts, vocabulary, row_length=5)
    assert counted.as_dict() == {
        "documents": 3,
        "respelled": 1,
        "too_long": 1,
        "positions": 6,
        "trimmed": 2,
    }
    notes = trim_notes(vocabulary, counted, counted, 0.0123)
    assert "2 of the teacher's 40 tokens" in notes[0]
    assert "1.230%" in notes[0]
    assert "in 1 of 3 training documents, of which 1 became longer than a row" in notes[1]
    assert "33.33%" in notes[1]


def test_tokens_are_chosen_by_what_text_and_teacher_say() -> None:
    taught = [Taught(document([1, 2, 1]), heard(law(0, 2), 0))]
    said_V, needed = said(taught, TOKENS)
    counted = np.bincount([1, 2, 1], minlength=TOKENS)
    assert said_V.sum() == pytest.approx(
        3 + 2, abs=1e-3
    )  # a token each, and a mass of 1 a position
    assert (said_V >= counted - 1e-6).all()
    assert {1, 2} <= needed


def pieces(ids: Iterable[int]) -> set[int]:
    """Return ids with their ancestors where token n is made of n // 2."""
    closed: set[int] = set()
    for token in ids:
        while token not in closed:
            closed.add(token)
            token //= 2
    return closed


@given(
    said_V=st.lists(st.integers(0, 9), min_size=TOKENS, max_size=TOKENS), size=st.integers(3, 39)
)
def test_a_size_is_met_to_the_token_and_closed(said_V: list[int], size: int) -> None:
    chosen = choose_tokens(
        size,
        said_V=np.array(said_V, np.float32),
        needed=(),
        required={0, 1, 2},
        closure=pieces,
    )
    kept = set(chosen.tolist())
    assert len(chosen) == size
    assert pieces(kept) == kept >= {0, 1, 2}


def test_the_corpus_size_keeps_what_is_needed_and_nothing_else() -> None:
    chosen = choose_tokens(
        "corpus",
        said_V=np.ones(TOKENS, np.float32),
        needed={20},
        required={0, 1},
        closure=pieces,
    )
    assert set(chosen.tolist()) == {0, 1, 2, 5, 10, 20}


@pytest.mark.parametrize("size", [2, TOKENS])
def test_a_size_out_of_range_is_refused_with_the_range(size: int) -> None:
    with pytest.raises(RecipeError, match=r"at least 3, .* below the teacher's 40 tokens, got"):
        choose_tokens(
            size,
            said_V=np.ones(TOKENS, np.float32),
            needed=(),
            required={0, 1, 2},
            closure=pieces,
        )


def test_a_vocabulary_comes_back_from_its_file(tmp_path: Path) -> None:
    assert read_vocabulary(tmp_path / "vocabulary.json") is None
    write_vocabulary(tmp_path / "vocabulary.json", before := of({3, 8}))
    after = read_vocabulary(tmp_path / "vocabulary.json")
    assert after is not None
    assert (after.kept_K.tolist(), after.teacher_size) == (before.kept_K.tolist(), TOKENS)
    assert after.spell(range(TOKENS)) == before.spell(range(TOKENS))
