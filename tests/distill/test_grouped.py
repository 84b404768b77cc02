"""Losses over labels through the fused path, against dense sums in float64."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.distill.fused import fused_sparse_loss
from limbeck.distill.grouped import grouped, label_sums, ranked
from limbeck.distill.labels import StudentLabels, share_labels
from limbeck.distill.losses import forward_kl, objective
from limbeck.distill.objective import LossSpec
from limbeck.distill.spelling import Spelling
from limbeck.distill.targets import SparseTargets, concatenate

TEACHER = [b"a", b"b", b"in", b"under", b"x"]
STUDENT = [b"a", b"b", b"ab", b"aba", b"in", b"ing", b"ings", b"int", b"y", b"yy"]
ROWS = 40
WIDTH = 6
KINDS = ["forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "total_variation"]


def made_labels() -> StudentLabels:
    sides = [Spelling((None, *side, None), {0: b"<s>"}) for side in (TEACHER, STUDENT)]
    return share_labels(*sides, teacher_ends=[0], student_ends=[0]).student


LABELS = made_labels()


@dataclass(frozen=True, slots=True)
class Batch:
    hidden_ND: Tensor
    weight_VD: Tensor
    realised_N: np.ndarray

    @property
    def logits_NV(self) -> Tensor:
        return self.hidden_ND @ self.weight_VD.t()


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    size = len(LABELS.label_V)
    hidden_ND = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    weight_VD = torch.randn(size, WIDTH, generator=generator, dtype=torch.float64)
    realised_N = torch.randint(0, size - 1, (ROWS,), generator=generator).numpy()
    return Batch(
        hidden_ND.requires_grad_(), weight_VD.requires_grad_(), realised_N.astype(np.int32)
    )


def dense(logits_NV: Tensor, realised_N: np.ndarray) -> Tensor:
    """Sum a student's probabilities over labels [N, size], REALISED taken out of its label."""
    probs_NV = logits_NV.softmax(-1)
    rows: list[Tensor] = []
    for probs_V, token in zip(probs_NV, realised_N.tolist(), strict=True):
        into = torch.from_numpy(LABELS.label_V.copy())
        if LABELS.is_split(token):
            for other, piece in enumerate(STUDENT, start=1):
                mine = STUDENT[token - 1]
                if piece.startswith(mine) and into[other] == LABELS.label_V[token]:
                    into[other] = LABELS.realised
        rows.append(probs_V.new_zeros(LABELS.size).index_add(0, into, probs_V))
    return torch.stack(rows)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_a_students_probabilities_are_summed_token_by_token(seed: int) -> None:
    made = batch(seed)
    probs_NV = made.logits_NV.detach().softmax(-1)
    sums_NL = label_sums(probs_NV, made.realised_N, LABELS)
    torch.testing.assert_close(sums_NL, dense(made.logits_NV.detach(), made.realised_N))


def whole_heads(probs_NL: np.ndarray) -> SparseTargets:
    """Keep every label that has any mass."""
    parts: list[SparseTargets] = []
    for probs_L in probs_NL:
        ids = np.flatnonzero(probs_L)
        parts.append(
            SparseTargets(
                offsets_N1=np.array([0, len(ids)]),
                ids_E=ids.astype(np.int32),
                weights_E=probs_L[ids].astype(np.float32),
                is_head_E=np.ones(len(ids), np.bool_),
                tail_N=np.zeros(1, np.float32),
                entropy_N=np.array([-(probs_L[ids] * np.log(probs_L[ids])).sum()], np.float32),
            )
        )
    return concatenate(parts)


def teacher_probs(seed: int, realised_N: np.ndarray) -> np.ndarray:
    """Random distributions over the labels that a teacher could mean at each row."""
    rng = np.random.default_rng(seed)
    possible = dense(torch.zeros(ROWS, len(LABELS.label_V), dtype=torch.float64), realised_N) > 0
    masses = rng.gamma(0.5, size=(ROWS, LABELS.size)) * possible.numpy()
    return masses / masses.sum(1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), tile=st.sampled_from([1, 7, ROWS]), kind=st.sampled_from(KINDS))
def test_loss_and_gradient_are_those_of_dense_sums(seed: int, tile: int, kind: str) -> None:
    made = batch(seed)
    spec = LossSpec(kind, coarse_tail=True, cross_entropy=0.25)  # pyright: ignore[reportArgumentType]
    p_NL = teacher_probs(seed, made.realised_N)
    targets = grouped(whole_heads(p_NL), made.realised_N, LABELS)
    next_N = torch.from_numpy(made.realised_N).long()
    loss = fused_sparse_loss(made.hidden_ND, made.weight_VD, targets, next_N, spec, ROWS, tile=tile)
    found = torch.autograd.grad(loss, (made.hidden_ND, made.weight_VD))
    q_log = dense(made.logits_NV, made.realised_N).clamp(min=1e-38).log()
    p_log = torch.from_numpy(p_NL.astype(np.float32)).double().log()
    only = LossSpec(kind, coarse_tail=True)  # pyright: ignore[reportArgumentType]
    divergence_N = objective(only, p_log, q_log, None)
    own_N = objective(LossSpec("cross_entropy"), None, made.logits_NV, next_N)
    expected = (0.75 * divergence_N + 0.25 * own_N).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
    for got, want in zip(
        found, torch.autograd.grad(expected, (made.hidden_ND, made.weight_VD)), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_a_student_that_agrees_on_every_label_has_no_loss_and_no_gradient(seed: int) -> None:
    made = batch(seed)
    p_NL = dense(made.logits_NV, made.realised_N).detach()
    targets = grouped(whole_heads(p_NL.numpy()), made.realised_N, LABELS)
    spec = LossSpec(coarse_tail=True)
    loss = fused_sparse_loss(made.hidden_ND, made.weight_VD, targets, None, spec, ROWS)
    gradients = torch.autograd.grad(loss, (made.hidden_ND, made.weight_VD))
    assert float(loss.detach()) == pytest.approx(0, abs=1e-9)
    assert max(float(g.abs().max()) for g in gradients) < 1e-6


def test_samples_of_labels_estimate_the_dense_gradient() -> None:
    """Tail samples are linear in the masses, so sums over labels stay unbiased."""
    made = batch(3)
    p_NL = teacher_probs(3, made.realised_N)
    exact_log = torch.from_numpy(p_NL).log()
    q_log = dense(made.logits_NV, made.realised_N).clamp(min=1e-38).log()
    want = torch.autograd.grad(forward_kl(exact_log, q_log).mean(), made.weight_VD)[0]
    rng = np.random.default_rng(0)
    total = torch.zeros_like(want)
    rounds = 300
    for _ in range(rounds):
        targets = grouped(_sampled(p_NL, rng), made.realised_N, LABELS)
        loss = fused_sparse_loss(made.hidden_ND, made.weight_VD, targets, None, LossSpec(), ROWS)
        total += torch.autograd.grad(loss, made.weight_VD)[0]
    assert float((total / rounds - want).norm()) < 0.05 * float(want.norm())


def _sampled(p_NL: np.ndarray, rng: np.random.Generator) -> SparseTargets:
    """Keep the likeliest label, and draw four from the rest."""
    parts: list[SparseTargets] = []
    for p_L in p_NL:
        top = int(p_L.argmax())
        rest_L = np.where(np.arange(len(p_L)) == top, 0, p_L)
        tail = rest_L.sum()
        drawn = rng.choice(len(p_L), 4, p=rest_L / tail)
        parts.append(
            SparseTargets(
                offsets_N1=np.array([0, 5]),
                ids_E=np.array([top, *drawn], dtype=np.int32),
                weights_E=np.array([p_L[top], *([tail / 4] * 4)], dtype=np.float32),
                is_head_E=np.arange(5) == 0,
                tail_N=np.array([tail], np.float32),
                entropy_N=np.zeros(1, np.float32),
            )
        )
    return concatenate(parts)


def one_row(ids: list[int], weights: list[float], head: list[bool]) -> SparseTargets:
    tail = max(0.0, 1 - sum(w for w, h in zip(weights, head, strict=True) if h))
    return SparseTargets(
        offsets_N1=np.array([0, len(ids)]),
        ids_E=np.array(ids, np.int32),
        weights_E=np.array(weights, np.float32),
        is_head_E=np.array(head),
        tail_N=np.array([tail], np.float32),
        entropy_N=np.zeros(1, np.float32),
    )


def test_a_row_that_only_begins_compares_two_outcomes() -> None:
    ing = 1 + STUDENT.index(b"ing")
    row = one_row([LABELS.begun, LABELS.rest], [0.3, 0.7], [True, True])
    targets = grouped(row, np.array([ing], np.int32), LABELS)
    logits_NV = torch.randn(1, len(LABELS.label_V), dtype=torch.float64)
    weight_VV = torch.eye(len(LABELS.label_V), dtype=torch.float64)
    loss = fused_sparse_loss(logits_NV, weight_VV, targets, None, LossSpec(), 1)
    begins = [n for n, piece in enumerate(STUDENT, 1) if piece.startswith(b"ing")]
    q = float(logits_NV.softmax(-1)[0, begins].sum())
    expected = 0.3 * np.log(0.3 / q) + 0.7 * np.log(0.7 / (1 - q))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)


def test_what_is_unsaid_teaches_nothing() -> None:
    realised_N = np.array([3], np.int32)
    sampled = one_row([LABELS.rest, LABELS.begun], [0.95, 0.05], [True, False])
    for row in (one_row([LABELS.rest], [1.0], [True]), sampled):
        for targets in (grouped(row, realised_N, LABELS), ranked(row, LABELS)):
            hidden_ND = torch.randn(1, WIDTH, dtype=torch.float64, requires_grad=True)
            weight_VD = torch.randn(len(LABELS.label_V), WIDTH, dtype=torch.float64)
            spec = LossSpec("total_variation", coarse_tail=True)
            loss = fused_sparse_loss(hidden_ND, weight_VD, targets, None, spec, 1)
            loss.backward()
            assert float(loss.detach()) == pytest.approx(0, abs=1e-7)
            assert hidden_ND.grad is not None
            assert float(hidden_ND.grad.abs().max()) < 1e-7


def sorted_heads(p_NV: np.ndarray, kept: int) -> SparseTargets:
    """Keep the `kept` largest probabilities of each row, by rank."""
    parts = [one_row([*range(kept)], np.sort(p)[::-1][:kept].tolist(), [True] * kept) for p in p_NV]
    return concatenate(parts)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), kept=st.integers(1, 12), tile=st.sampled_from([3, ROWS]))
def test_ranked_targets_are_half_the_distance_of_sorted_probabilities(
    seed: int, kept: int, tile: int
) -> None:
    made = batch(seed)
    rng = np.random.default_rng(seed)
    p_NV = rng.dirichlet(np.full(12, 0.5), ROWS).astype(np.float32).astype(np.float64)
    targets = ranked(sorted_heads(p_NV, kept), LABELS)
    spec = LossSpec("total_variation", coarse_tail=True)
    loss = fused_sparse_loss(made.hidden_ND, made.weight_VD, targets, None, spec, ROWS, tile=tile)
    found = torch.autograd.grad(loss, (made.hidden_ND, made.weight_VD))
    p_sorted = torch.from_numpy(-np.sort(-p_NV))[:, :kept]
    q_sorted = made.logits_NV.softmax(-1).sort(-1, descending=True).values[:, :kept]
    tails = (p_sorted.sum(-1) - q_sorted.sum(-1)).abs()
    expected = (0.5 * ((p_sorted - q_sorted).abs().sum(-1) + tails)).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for got, want in zip(
        found, torch.autograd.grad(expected, (made.hidden_ND, made.weight_VD)), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_ranked_targets_do_not_see_which_token_is_meant() -> None:
    """The flaw of ULD: a student with the right probabilities on the wrong tokens has no loss."""
    size = len(LABELS.label_V)
    p_V = torch.randn(size, dtype=torch.float64).softmax(-1)
    wrong_V = p_V[torch.randperm(size)]
    targets = ranked(sorted_heads(p_V.numpy()[None], size), LABELS)
    spec = LossSpec("total_variation", coarse_tail=True)
    eye_VV = torch.eye(size, dtype=torch.float64)
    loss = fused_sparse_loss(wrong_V.log()[None], eye_VV, targets, None, spec, 1)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
