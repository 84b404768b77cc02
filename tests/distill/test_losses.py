"""Laws of the dense divergences, and of the objective built from them."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.distill.losses import (
    TERMS,
    cross_entropy,
    forward_kl,
    generalised_jsd,
    normalised,
    objective,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
    softened,
    total_variation,
)
from limbeck.distill.objective import Kind, LossSpec
from limbeck.errors import LossError

Divergence = Callable[[Tensor, Tensor], Tensor]

DIVERGENCES: dict[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": lambda p, q: generalised_jsd(p, q, 0.3),
    "skew_forward_kl": lambda p, q: skew_forward_kl(p, q, 0.1),
    "skew_reverse_kl": lambda p, q: skew_reverse_kl(p, q, 0.1),
    "total_variation": total_variation,
}
"""What the library computes."""


def kl(a: Tensor, b: Tensor) -> Tensor:
    return (a * (a / b).log()).sum(-1)


def plain_jsd(p: Tensor, q: Tensor) -> Tensor:
    m = 0.3 * p + 0.7 * q
    return 0.3 * kl(p, m) + 0.7 * kl(q, m)


TEXTBOOK: dict[str, Divergence] = {
    "forward_kl": kl,
    "reverse_kl": lambda p, q: kl(q, p),
    "jsd": plain_jsd,
    "skew_forward_kl": lambda p, q: kl(p, 0.1 * p + 0.9 * q),
    "skew_reverse_kl": lambda p, q: kl(q, 0.9 * p + 0.1 * q),
    "total_variation": lambda p, q: (p - q).abs().sum(-1) / 2,
}
"""The same, from probabilities in float64, straight from the papers."""

each_divergence = pytest.mark.parametrize("name", list(DIVERGENCES))


def logits(seed: int, *shape: int, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def gradient(value: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), by)[0]


def test_every_kind_but_cross_entropy_is_a_divergence() -> None:
    assert set(TERMS) == set(DIVERGENCES) == set(get_args(Kind)) - {"cross_entropy"}


@each_divergence
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_perfect_student_has_zero_loss_and_zero_gradient(name: str, dtype: torch.dtype) -> None:
    z = logits(0, 5, 40).to(dtype).requires_grad_()
    q_log = z.log_softmax(-1)
    loss = DIVERGENCES[name](q_log.detach(), q_log)
    assert loss.abs().max() < 1e-12
    rounding = 1e-14 if dtype == torch.float64 else 1e-7  # of log(alpha p + (1 - alpha) q)
    assert gradient(loss, z).abs().max() < rounding


@each_divergence
def test_the_value_agrees_with_the_textbook_in_float64(name: str) -> None:
    p_log, q_log = logits(1, 9, 60).log_softmax(-1), logits(2, 9, 60).log_softmax(-1)
    expected = TEXTBOOK[name](p_log.exp(), q_log.exp())
    torch.testing.assert_close(DIVERGENCES[name](p_log, q_log), expected, rtol=1e-12, atol=0)
    single = DIVERGENCES[name](p_log.float(), q_log.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, expected.float(), rtol=1e-5, atol=1e-6)


@each_divergence
def test_the_gradient_agrees_with_the_textbooks(name: str) -> None:
    p_log, z = logits(3, 4, 30).log_softmax(-1), logits(4, 4, 30).requires_grad_()
    ours = gradient(DIVERGENCES[name](p_log, z.log_softmax(-1)), z)
    theirs = gradient(TEXTBOOK[name](p_log.exp(), z.softmax(-1)), z)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@each_divergence
def test_the_gradient_agrees_with_finite_differences(name: str) -> None:
    p_log, z = logits(5, 2, 6).log_softmax(-1), logits(6, 2, 6).requires_grad_()

    def loss(z: Tensor) -> Tensor:
        return DIVERGENCES[name](p_log, z.log_softmax(-1))

    assert torch.autograd.gradcheck(loss, (z,))


@each_divergence
def test_a_student_close_to_the_teacher_keeps_its_digits_in_float32(name: str) -> None:
    z = logits(7, 6, 50)
    p_log = z.log_softmax(-1).float()
    q_log = (z + 1e-3 * logits(8, 6, 50)).log_softmax(-1).float()
    exact = DIVERGENCES[name](p_log.double(), q_log.double())
    torch.testing.assert_close(
        DIVERGENCES[name](p_log, q_log).double(), exact, rtol=2e-3, atol=1e-12
    )


@each_divergence
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_no_loss_is_negative_when_rounding_breaks_the_sum_of_one(
    name: str, dtype: torch.dtype
) -> None:
    z = logits(9, 400, 200, scale=4)
    p_log = z.log_softmax(-1).to(dtype)
    q_log = (z + 1e-2 * logits(10, 400, 200)).log_softmax(-1).to(dtype)
    assert DIVERGENCES[name](p_log, q_log).min() >= 0


@each_divergence
def test_half_precision_is_widened_before_anything_is_summed(name: str) -> None:
    p_log = logits(11, 3, 300).log_softmax(-1).bfloat16()
    q_log = logits(12, 3, 300).log_softmax(-1).bfloat16()
    widened = DIVERGENCES[name](p_log.float(), q_log.float())
    assert torch.equal(DIVERGENCES[name](p_log, q_log), widened)


@each_divergence
def test_tokens_that_the_teacher_never_says_leave_value_and_gradient_finite(name: str) -> None:
    z_teacher = logits(13, 4, 20).float()
    z_teacher[:, ::3] = -math.inf
    z = logits(14, 4, 20).float().requires_grad_()
    loss = DIVERGENCES[name](z_teacher.log_softmax(-1), z.log_softmax(-1))
    assert loss.isfinite().all()
    assert gradient(loss, z).isfinite().all()


@each_divergence
def test_tokens_that_neither_says_count_for_nothing(name: str) -> None:
    p_log, q_log = logits(15, 3, 20).log_softmax(-1), logits(16, 3, 20).log_softmax(-1)
    never = torch.full((3, 7), -math.inf, dtype=torch.float64)
    padded = DIVERGENCES[name](torch.cat([p_log, never], -1), torch.cat([q_log, never], -1))
    torch.testing.assert_close(padded, DIVERGENCES[name](p_log, q_log), rtol=1e-12, atol=1e-12)


def test_forward_kl_ignores_where_the_teacher_says_nothing() -> None:
    p_log = torch.tensor([[0.25, 0.75, 0.0]], dtype=torch.float64).log()
    q_log = torch.tensor([[0.5, 0.2, 0.3]], dtype=torch.float64).log()
    by_hand = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.2)
    assert forward_kl(p_log, q_log).item() == pytest.approx(by_hand, rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(0.01, 8), st.floats(0.01, 0.99))
def test_divergences_stay_within_their_bounds(seed: int, scale: float, weight: float) -> None:
    p_log = logits(seed, 3, 12, scale=scale).log_softmax(-1)
    q_log = logits(seed + 1, 3, 12, scale=scale).log_softmax(-1)
    slack = 1e-9
    coin = -weight * math.log(weight) - (1 - weight) * math.log(1 - weight)
    assert total_variation(p_log, q_log).min() >= 0
    assert total_variation(p_log, q_log).max() <= 1 + slack
    assert generalised_jsd(p_log, q_log, weight).max() <= coin + slack
    assert skew_forward_kl(p_log, q_log, weight).max() <= -math.log(weight) + slack
    assert skew_reverse_kl(p_log, q_log, weight).max() <= -math.log(weight) + slack
    assert min(DIVERGENCES[name](p_log, q_log).min() for name in DIVERGENCES) >= 0


def test_jsd_at_one_half_is_symmetric_and_elsewhere_is_not() -> None:
    p_log, q_log = logits(17, 5, 20).log_softmax(-1), logits(18, 5, 20).log_softmax(-1)
    one, other = generalised_jsd(p_log, q_log, 0.5), generalised_jsd(q_log, p_log, 0.5)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    skewed = generalised_jsd(p_log, q_log, 0.2) - generalised_jsd(q_log, p_log, 0.2)
    assert skewed.abs().min() > 1e-4


def test_jsd_of_small_beta_goes_to_zero_and_only_its_quotient_to_forward_kl() -> None:
    p_log, q_log = logits(19, 5, 20).log_softmax(-1), logits(20, 5, 20).log_softmax(-1)
    value = generalised_jsd(p_log, q_log, 1e-6)
    assert value.max() < 1e-4
    torch.testing.assert_close(value / 1e-6, forward_kl(p_log, q_log), rtol=1e-3, atol=0)


def test_skew_of_zero_is_the_divergence_itself() -> None:
    p_log, q_log = logits(21, 5, 20).log_softmax(-1), logits(22, 5, 20).log_softmax(-1)
    assert torch.equal(skew_forward_kl(p_log, q_log, 0.0), forward_kl(p_log, q_log))
    assert torch.equal(skew_reverse_kl(p_log, q_log, 0.0), reverse_kl(p_log, q_log))


def test_cross_entropy_is_minus_the_log_of_the_realised_token() -> None:
    q_log, ids = logits(23, 6, 20).log_softmax(-1), torch.tensor([3, 0, 19, 7, 7, 1])
    expected = torch.nn.functional.nll_loss(q_log, ids, reduction="none")
    assert torch.equal(cross_entropy(ids, q_log), expected)


def test_softening_divides_the_logits_by_the_temperature() -> None:
    z = logits(24, 4, 20)
    torch.testing.assert_close(softened(z, 2.5), (z / 2.5).log_softmax(-1))
    assert softened(z.bfloat16(), 2.5).dtype == torch.float32


@each_divergence
def test_the_objective_mixes_t_squared_divergence_and_cross_entropy(name: str) -> None:
    kind = cast("Kind", name)
    spec = LossSpec(kind, temperature=3.0, skew=0.1, beta=0.3, cross_entropy=0.25)
    p_log, z, ids = softened(logits(25, 5, 20), 3.0), logits(26, 5, 20), torch.arange(5)
    divergence = TEXTBOOK[name](p_log.exp(), (z / 3).softmax(-1))
    expected = 0.75 * 9 * divergence - 0.25 * z.log_softmax(-1)[torch.arange(5), ids]
    torch.testing.assert_close(objective(spec, p_log, z, ids), expected, rtol=1e-10, atol=1e-12)


def test_t_squared_keeps_the_size_of_the_gradient_at_high_temperature() -> None:
    z_teacher, z = logits(27, 6, 30, scale=0.5), logits(28, 6, 30, scale=0.5).requires_grad_()
    sizes = [
        gradient(objective(LossSpec(temperature=t), softened(z_teacher, t), z, None), z).norm()
        for t in (20.0, 80.0)
    ]
    assert sizes[1] / sizes[0] == pytest.approx(1, rel=0.05)


def test_plain_cross_entropy_reads_no_teacher() -> None:
    z, ids = logits(29, 5, 20), torch.arange(5)
    spec = LossSpec("cross_entropy")
    torch.testing.assert_close(objective(spec, None, z, ids), cross_entropy(ids, z.log_softmax(-1)))


def test_an_objective_without_its_inputs_says_which_is_missing() -> None:
    z = logits(30, 2, 5)
    with pytest.raises(LossError, match="forward_kl needs the teacher"):
        objective(LossSpec(), None, z, None)
    with pytest.raises(LossError, match="realised next tokens"):
        objective(replace(LossSpec(), cross_entropy=0.5), z.log_softmax(-1), z, None)


@each_divergence
def test_uneven_micro_batches_add_up_to_the_whole_batch(name: str) -> None:
    p_log, z = logits(31, 10, 20).log_softmax(-1), logits(32, 10, 20).requires_grad_()

    def step(*pieces: slice) -> tuple[Tensor, Tensor]:
        losses = [
            normalised(DIVERGENCES[name](p_log[piece], z[piece].log_softmax(-1)), positions=10)
            for piece in pieces
        ]
        total = torch.stack(losses).sum()
        return total.detach(), gradient(total, z)

    whole = step(slice(0, 10))
    split = step(slice(0, 1), slice(1, 8), slice(8, 10))
    torch.testing.assert_close(split, whole, rtol=1e-12, atol=1e-15)


def test_a_step_without_loss_positions_cannot_be_normalised() -> None:
    with pytest.raises(LossError, match="at least 1, got 0"):
        normalised(torch.zeros(3), positions=0)
