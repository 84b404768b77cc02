"""A sparse distribution stands for the dense one: in mass, in bounds and in expectation."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.distill.store import (
    StoreReader,
    StoreSpec,
    StoreWriter,
    gradient_mse,
    sparsify,
    sparsify_known,
)
from limbeck.distill.targets import Document, SparseTargets, Taught
from limbeck.errors import StoreError


def _log_probs(positions: int, seed: int, vocabulary: int = 601) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale_N1 = torch.linspace(0.3, 6.0, max(positions, 1))[:positions, None]
    return (torch.randn(positions, vocabulary, generator=generator) * scale_N1).log_softmax(-1)


def _dense(targets: SparseTargets, vocabulary: int) -> np.ndarray:
    owner_E = np.repeat(np.arange(len(targets)), np.diff(targets.offsets_N1))
    dense_NV = np.zeros((len(targets), vocabulary))
    np.add.at(dense_NV, (owner_E, targets.ids_E), targets.weights_E.astype(np.float64))
    return dense_NV


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    vocabulary=st.integers(2, 700),
    threshold=st.floats(0.02, 0.9),
    levels=st.integers(2, 2000),
    samples=st.integers(1, 9),
)
def test_masses_sum_to_one_and_lie_within_the_stated_bound(
    seed: int, vocabulary: int, threshold: float, levels: int, samples: int
) -> None:
    spec = StoreSpec(head_threshold=threshold, levels=levels, tail_samples=samples, tail_floor=0.0)
    log_probs_NV = _log_probs(9, seed, vocabulary)
    targets = sparsify(log_probs_NV, None, spec, torch.Generator().manual_seed(seed))
    dense_NV = _dense(targets, vocabulary)
    np.testing.assert_allclose(dense_NV.sum(1), 1, atol=1e-5)
    owner_E = np.repeat(np.arange(9), np.diff(targets.offsets_N1))
    head = targets.is_head_E
    exact = log_probs_NV.exp().numpy()[owner_E[head], targets.ids_E[head]]
    assert (np.abs(targets.weights_E[head] - exact) < 1 / levels + 1e-5).all()
    tails = np.bincount(owner_E[~head], weights=targets.weights_E[~head], minlength=9)
    np.testing.assert_allclose(tails, targets.tail_N, atol=1e-5)


def test_a_head_holds_exactly_the_tokens_above_the_threshold_most_likely_first() -> None:
    log_probs_NV = _log_probs(40, 3)
    probs_NV = log_probs_NV.exp().numpy()
    targets = sparsify(log_probs_NV, None, StoreSpec(), torch.Generator().manual_seed(0))
    for n in range(40):
        entries = slice(targets.offsets_N1[n], targets.offsets_N1[n + 1])
        ids = targets.ids_E[entries][targets.is_head_E[entries]]
        assert set(ids) == set(np.flatnonzero(probs_NV[n] >= StoreSpec().head_threshold))
        assert (np.diff(probs_NV[n][ids]) <= 0).all()
        assert not set(ids) & set(targets.ids_E[entries][~targets.is_head_E[entries]])


def test_a_capped_head_keeps_its_most_likely_tokens_even_among_ties() -> None:
    log_probs_NV = torch.full((3, 4), 0.25).log()
    spec = StoreSpec(head_threshold=0.1, max_head=2, tail_floor=0.0)
    targets = sparsify(log_probs_NV, None, spec, torch.Generator().manual_seed(0))
    assert targets.is_head_E.reshape(3, -1).sum(1).tolist() == [2, 2, 2]
    np.testing.assert_allclose(targets.tail_N, 0.5)


def test_the_entropy_is_that_of_the_dense_distribution_within_half_a_step() -> None:
    log_probs_NV = _log_probs(60, 4)
    exact_N = torch.special.entr(log_probs_NV.double().exp()).sum(-1).numpy()
    targets = sparsify(log_probs_NV, None, StoreSpec(), torch.Generator().manual_seed(0))
    assert np.abs(targets.entropy_N - exact_N).max() <= 1 / 32 + 1e-4


def test_tokens_of_no_probability_are_allowed_and_never_drawn() -> None:
    log_probs_NV = torch.full((50, 300), -torch.inf)
    log_probs_NV[:, 10:30] = float(np.log(1 / 20))
    targets = sparsify(log_probs_NV, None, StoreSpec(), torch.Generator().manual_seed(0))
    assert targets.ids_E.min() >= 10
    assert targets.ids_E.max() < 30
    np.testing.assert_allclose(targets.entropy_N, np.log(20), atol=1 / 32)


def test_the_same_seed_gives_the_same_targets_and_another_seed_does_not() -> None:
    log_probs_NV = _log_probs(50, 5)
    first, again, other = (
        sparsify(log_probs_NV, None, StoreSpec(), torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    )
    assert first.ids_E.tobytes() == again.ids_E.tobytes()
    assert first.weights_E.tobytes() == again.weights_E.tobytes()
    assert first.ids_E.tobytes() != other.ids_E.tobytes()


@pytest.mark.parametrize("realised", [False, True])
@pytest.mark.parametrize("scale", [0.7, 2.0, 6.0])
def test_the_expected_gradient_is_the_dense_one(scale: float, realised: bool) -> None:
    """A z-test per token over 40,000 independent sparse versions of one distribution."""
    draws, vocabulary = 40_000, 12
    generator = torch.Generator().manual_seed(17)
    noise_V = torch.randn(vocabulary, generator=generator)
    log_probs_V = (scale * noise_V).log_softmax(-1)
    log_probs_NV = log_probs_V.expand(draws, vocabulary).contiguous()
    spec = StoreSpec(head_threshold=0.2, tail_weight=0.15, tail_samples=4, levels=32)
    own = None
    if realised:
        own = torch.multinomial(log_probs_V.exp(), draws, replacement=True, generator=generator)
    dense_NV = _dense(sparsify(log_probs_NV, own, spec, generator), vocabulary)
    error_V = dense_NV.mean(0) - log_probs_V.double().exp().numpy()
    deviation_V = dense_NV.std(0) / np.sqrt(draws)
    # 4.5 standard errors: a false alarm once in 12,000 runs over 12 tokens.
    assert (np.abs(error_V) <= 4.5 * deviation_V + 1e-6).all()
    assert deviation_V.max() > 0


def test_a_realised_token_of_the_tail_is_always_one_of_the_samples() -> None:
    log_probs_NV = _log_probs(200, 8)
    generator = torch.Generator().manual_seed(3)
    realised_N = torch.multinomial(log_probs_NV.exp(), 1, generator=generator)[:, 0]
    targets = sparsify(log_probs_NV, realised_N, StoreSpec(), generator)
    seen = 0
    for n in range(200):
        entries = slice(targets.offsets_N1[n], targets.offsets_N1[n + 1])
        ids, head = targets.ids_E[entries], targets.is_head_E[entries]
        if realised_N[n] not in ids[head] and not head.all():
            seen += 1
            assert realised_N[n] in ids[~head]
    assert seen > 20


def test_a_realised_token_leaves_the_error_as_small_as_it_is() -> None:
    log_probs_NV = _log_probs(3000, 9, 200)
    generator = torch.Generator().manual_seed(4)
    realised_N = torch.multinomial(log_probs_NV.exp(), 1, generator=generator)[:, 0]
    plain, free = (
        gradient_mse(sparsify(log_probs_NV, r, StoreSpec(), generator), log_probs_NV).mean()
        for r in (None, realised_N)
    )
    assert abs(float(plain / free) - 1) < 0.05


def test_log_probabilities_of_another_shape_are_refused() -> None:
    with pytest.raises(StoreError, match=r"\[N, V\]"):
        sparsify(torch.zeros(5), None, StoreSpec(), torch.Generator())


def test_no_positions_make_empty_targets() -> None:
    targets = sparsify(torch.zeros(0, 300), None, StoreSpec(), torch.Generator())
    assert len(targets) == 0
    assert targets.offsets_N1.tolist() == [0]


@pytest.mark.parametrize(
    "values",
    [
        {"head_threshold": 0.0},
        {"tail_samples": -1},
        {"levels": 1},
        {"temperature": 0.0},
        {"top_k": 17},
        {"bytes_per_token": 9.0, "max_gradient_mse": 0.1},
    ],
)
def test_a_spec_out_of_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(StoreError, match="store"):
        StoreSpec(**values)  # pyright: ignore[reportArgumentType] - wrong on purpose


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), levels=st.integers(64, 5000), entries=st.integers(1, 6))
def test_known_tokens_keep_their_mass_and_what_they_leave_is_tail(
    seed: int, levels: int, entries: int
) -> None:
    rng = np.random.default_rng(seed)
    heads_N = rng.integers(0, entries + 1, 12)
    probs = [np.sort(rng.dirichlet(np.ones(h + 1))[:h])[::-1] for h in heads_N]
    ids = [rng.choice(50, h, replace=False) for h in heads_N]
    realised_N = rng.integers(0, 50, 12)
    spec = StoreSpec(
        max_head=entries, tail_samples=1, tail_weight=None, tail_floor=0.0, levels=levels
    )
    targets = sparsify_known(
        heads_N,
        np.concatenate(ids).astype(np.int64),
        np.concatenate(probs).astype(np.float64),
        realised_N,
        spec,
        torch.Generator().manual_seed(seed),
    )
    for n in range(12):
        where = slice(*targets.offsets_N1[n : n + 2])
        if heads_N[n] == 0:
            assert targets.ids_E[where].tolist() == [realised_N[n]]
            assert targets.weights_E[where].tolist() == [1.0]
            assert (targets.tail_N[n], targets.entropy_N[n]) == (1.0, 0.0)
            continue
        assert targets.is_head_E[where].all()
        assert targets.ids_E[where].tolist() == ids[n].tolist()
        assert np.abs(targets.weights_E[where] - probs[n]).max() < 1 / levels + 1e-6
        tail = 1 - probs[n].sum()
        assert abs(targets.tail_N[n] - tail) < 1 / levels + 1e-6
        parts = np.append(probs[n], max(tail, 1e-300))
        assert abs(targets.entropy_N[n] + (parts * np.log(parts)).sum()) < 1 / 31


def test_known_masses_are_rounded_without_bias() -> None:
    spec = StoreSpec(max_head=2, tail_samples=1, tail_weight=None, tail_floor=0.0, levels=8)
    probs = np.array([0.53, 0.21])
    drawn = np.array(
        [
            sparsify_known(
                np.array([2]),
                np.array([4, 9]),
                probs,
                np.array([4]),
                spec,
                torch.Generator().manual_seed(seed),
            ).weights_E
            for seed in range(3000)
        ]
    )
    assert np.abs(drawn.mean(0) - probs).max() < 4 * drawn.std(0).max() / math.sqrt(3000)


def test_a_store_keeps_known_tokens_and_realised_ones_side_by_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    spec = StoreSpec(max_head=3, tail_samples=1, tail_weight=None, tail_floor=0.0, levels=4096)
    taught: list[Taught] = []
    for number in range(5):
        tokens_T = rng.integers(0, 99, 20).astype(np.int32)
        loss_T = np.ones(20, np.bool_)
        loss_T[-1] = False
        heads_N = rng.integers(0, 4, 19) if number else np.zeros(19, np.int64)
        probs = [np.sort(rng.dirichlet(np.ones(h + 1))[:h])[::-1] for h in heads_N]
        targets = sparsify_known(
            heads_N,
            np.concatenate([rng.choice(99, h, replace=False) for h in heads_N]).astype(np.int64),
            np.concatenate(probs).astype(np.float64),
            tokens_T[1:].astype(np.int64),
            spec,
            torch.Generator().manual_seed(number),
        )
        taught.append(
            Taught(Document(tokens_T, loss_T, number % 2 == 0, f"{number:064x}"), targets)
        )
    writer = StoreWriter(tmp_path, spec, vocabulary=99, tokenizer_sha256="t", teacher={})
    with writer:
        for one in taught:
            writer.append(one)
    for one, two in zip(taught, StoreReader(tmp_path).documents(), strict=True):
        np.testing.assert_array_equal(one.targets.ids_E, two.targets.ids_E)
        np.testing.assert_allclose(one.targets.weights_E, two.targets.weights_E)
        np.testing.assert_array_equal(one.targets.is_head_E, two.targets.is_head_E)
        np.testing.assert_allclose(one.targets.tail_N, two.targets.tail_N)
