"""Dense divergences of teacher and student: pure functions of log-probabilities.

`p` is the teacher, `q` the student; every function returns one value per position, in nats (total
variation: a probability). Half-precision inputs are widened to float32 before anything is computed.

Every KL is summed from the terms  a log(a / b) - a + b  instead of  a log(a / b).  The two sums are
equal where a and b sum to 1, but each of these terms is at least 0 and is 0 at a = b. So the value
cannot turn negative by rounding (bfloat16 log-probabilities do not sum to 1), and the gradient
vanishes at a = b term by term. The gradient with respect to `q_log` is that of the plain form plus
q, which `log_softmax` projects away.

A teacher probability of 0 (log -inf) adds nothing to a KL that starts from the teacher. In the
reverse KL, where a student with mass there is infinitely wrong, it counts as the smallest normal
float32 number (1.2e-38, a price of 87 nats), so that value and gradient stay finite.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from limbeck.distill.objective import Kind, LossSpec
from limbeck.errors import LossError

Terms = Callable[[Tensor, Tensor, LossSpec], Tensor]
"""Maps teacher and student log-probabilities to the summands of a divergence, elementwise."""

LOG_FLOOR = math.log(torch.finfo(torch.float32).tiny)
"""Where a log-probability of -inf is put: the log of the smallest normal float32 number."""

_NEAR = 0.5
"""Log-ratio t below which exp(t) - 1 - t is taken from expm1, for the plain form cancels."""


def forward_kl(p_log_NV: Tensor, q_log_NV: Tensor) -> Tensor:
    """Return KL(p || q) = sum p log(p / q), in [0, inf)."""
    return _kl(p_log_NV, q_log_NV).sum(-1)


def reverse_kl(p_log_NV: Tensor, q_log_NV: Tensor) -> Tensor:
    """Return KL(q || p) = sum q log(q / p), in [0, inf)."""
    return _kl(q_log_NV, p_log_NV).sum(-1)


def generalised_jsd(p_log_NV: Tensor, q_log_NV: Tensor, beta: float) -> Tensor:
    """Return beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q.

    The convention of GKD (Agarwal et al. 2024, equation 1). It is symmetric at beta = 0.5 and
    bounded by the entropy of a coin of bias beta, so by log 2.

    As beta goes to 0 this does *not* become forward KL: m becomes q and the value goes to 0. It is
    the quotient jsd / beta that tends to KL(p || q); likewise jsd / (1 - beta) tends to KL(q || p)
    as beta goes to 1.

    Args:
        p_log_NV: Teacher.
        q_log_NV: Student.
        beta: Weight of the teacher, strictly between 0 and 1.
    """
    return _jsd(p_log_NV, q_log_NV, beta).sum(-1)


def skew_forward_kl(p_log_NV: Tensor, q_log_NV: Tensor, alpha: float) -> Tensor:
    """Return KL(p || alpha p + (1 - alpha) q), in [0, -log alpha] (DistiLLM, Ko et al. 2024)."""
    return _kl(p_log_NV, _mixture(p_log_NV, q_log_NV, alpha)).sum(-1)


def skew_reverse_kl(p_log_NV: Tensor, q_log_NV: Tensor, alpha: float) -> Tensor:
    """Return KL(q || alpha q + (1 - alpha) p), in [0, -log alpha] (DistiLLM, Ko et al. 2024)."""
    return _kl(q_log_NV, _mixture(q_log_NV, p_log_NV, alpha)).sum(-1)


def total_variation(p_log_NV: Tensor, q_log_NV: Tensor) -> Tensor:
    """Return sum |p - q| / 2, in [0, 1]; where p = q its subgradient is 0."""
    return _half_distance(p_log_NV, q_log_NV).sum(-1)


def cross_entropy(ids_N: Tensor, q_log_NV: Tensor) -> Tensor:
    """Return -log q of the given token, in nats."""
    return -_widened(q_log_NV).gather(-1, ids_N.unsqueeze(-1)).squeeze(-1)


TERMS: dict[Kind, Terms] = {
    "forward_kl": lambda p_log, q_log, _: _kl(p_log, q_log),
    "reverse_kl": lambda p_log, q_log, _: _kl(q_log, p_log),
    "jsd": lambda p_log, q_log, spec: _jsd(p_log, q_log, spec.beta),
    "skew_forward_kl": lambda p_log, q_log, spec: _kl(p_log, _mixture(p_log, q_log, spec.skew)),
    "skew_reverse_kl": lambda p_log, q_log, spec: _kl(q_log, _mixture(q_log, p_log, spec.skew)),
    "total_variation": lambda p_log, q_log, _: _half_distance(p_log, q_log),
}
"""The divergences by name, as summands over any partition of the vocabulary."""


def softened(logits_NV: Tensor, temperature: float) -> Tensor:
    """Return log softmax(logits / temperature), in float32 or wider.

    A loss between softened distributions is multiplied by T^2; `LossSpec.divergence_weight` holds
    that factor.
    """
    return torch.log_softmax(_widened(logits_NV) / temperature, dim=-1)


def objective(
    spec: LossSpec, p_log_NV: Tensor | None, logits_NV: Tensor, next_ids_N: Tensor | None
) -> Tensor:
    """Return the loss of each position against dense targets, T^2 and cross-entropy share included.

    Args:
        spec: What is minimised.
        p_log_NV: The teacher's log-probabilities, already at `spec.temperature`; None for plain
            cross-entropy.
        logits_NV: The student's raw logits.
        next_ids_N: Realised next tokens; None where `spec` has no cross-entropy.

    Raises:
        LossError: An absent input that `spec` needs.
    """
    loss_N = torch.zeros_like(logits_NV[..., 0], dtype=_widened(logits_NV).dtype)
    if spec.needs_targets:
        if p_log_NV is None:
            raise LossError(f"loss.kind = {spec.kind} needs the teacher's distribution, got none")
        terms_NV = TERMS[spec.kind](p_log_NV, softened(logits_NV, spec.temperature), spec)
        loss_N = loss_N + spec.divergence_weight * terms_NV.sum(-1)
    if spec.cross_entropy_weight:
        if next_ids_N is None:
            raise LossError("cross-entropy needs the realised next tokens, got none")
        loss_N = loss_N + spec.cross_entropy_weight * cross_entropy(
            next_ids_N, softened(logits_NV, 1.0)
        )
    return loss_N


def normalised(loss_N: Tensor, positions: int) -> Tensor:
    """Return sum(loss) / positions, with `positions` counted over the whole optimiser step.

    Dividing by the global count, not by this micro-batch's, makes the gradient the same however the
    step is split.
    """
    if positions < 1:
        raise LossError(
            f"the number of loss positions of a step must be at least 1, got {positions}"
        )
    return loss_N.sum() / positions


def _widened(values: Tensor) -> Tensor:
    return values.float() if values.dtype in {torch.bfloat16, torch.float16} else values


def _finite(log_values: Tensor) -> Tensor:
    """Widen, and put log 0 at LOG_FLOOR; a finite log-probability keeps its value and gradient."""
    log_values = _widened(log_values)
    return log_values.masked_fill(log_values == -math.inf, LOG_FLOOR)


def _kl(a_log: Tensor, b_log: Tensor) -> Tensor:
    """Return a log(a / b) - a + b, at least 0; it is a (exp(t) - 1 - t) with t = log(b / a)."""
    a_log, b_log = _finite(a_log), _finite(b_log)
    a, t = a_log.exp(), b_log - a_log
    near = t.abs() < _NEAR
    t_near = torch.where(near, t, 0.0)
    terms = torch.where(near, a * (torch.expm1(t_near) - t_near), b_log.exp() - a - a * t)
    return terms.clamp(min=0.0)


def _jsd(p_log: Tensor, q_log: Tensor, beta: float) -> Tensor:
    m_log = _mixture(p_log, q_log, beta)
    return beta * _kl(p_log, m_log) + (1 - beta) * _kl(q_log, m_log)


def _half_distance(p_log: Tensor, q_log: Tensor) -> Tensor:
    return 0.5 * (_widened(p_log).exp() - _widened(q_log).exp()).abs()


def _mixture(a_log: Tensor, b_log: Tensor, weight: float) -> Tensor:
    """Return log(weight a + (1 - weight) b), for a weight in [0, 1)."""
    a_log, b_log = _finite(a_log), _finite(b_log)
    if weight == 0:
        return b_log
    return torch.logaddexp(a_log + math.log(weight), b_log + math.log1p(-weight))
