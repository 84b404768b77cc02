"""Dense divergences on a few positions with their gradients by the student's logits, in closed form.

`losses` defines the values; autograd through those definitions keeps a dozen [positions, vocabulary]
tensors. Here every divergence D is given by its value and by

    w_j = q_j dD/dq_j,    which leads to    dD/dz_j = (w_j - q_j sum_k w_k) / T

for q = softmax(z / T). A term c q_j in w, the same c for all j, drops out of that and is left away:

    divergence        w_j
    forward_kl        -p_j
    reverse_kl        q_j log(q_j / p_j)
    jsd               (1 - beta) q_j log(q_j / m_j)            m = beta p + (1 - beta) q
    skew_forward_kl   -(1 - alpha) p_j q_j / m_j               m = alpha p + (1 - alpha) q
    skew_reverse_kl   q_j log(q_j / m_j) - alpha q_j^2 / m_j   m = alpha q + (1 - alpha) p
    total_variation   q_j sign(q_j - p_j) / 2

What q changes through m adds up to a constant in `jsd`, so only the logarithm is left there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.distill.objective import Kind, LossSpec


@dataclass(frozen=True, slots=True)
class Slopes:
    """A divergence of N positions and what its gradient is made of."""

    value_N: Tensor
    """In nats; total variation a probability. Rounding below 0 is cut off."""
    weighted_NV: Tensor
    """q dD/dq, but for a multiple of q."""


def dense_slopes(spec: LossSpec, p_log_NV: Tensor, q_log_NV: Tensor) -> Slopes:
    """Return value and slopes of the divergence that `spec` names, T^2 and cross-entropy left aside.

    Args:
        spec: Names a divergence, not plain cross-entropy.
        p_log_NV: The teacher's log-probabilities, finite, at `spec.temperature`.
        q_log_NV: The student's.
    """
    value_N, weighted_NV = _SLOPES[spec.kind](p_log_NV, q_log_NV, spec)
    return Slopes(value_N.clamp(min=0.0), weighted_NV)


def logit_gradient(slopes: Slopes, q_log_NV: Tensor, temperature: float) -> Tensor:
    """Return the gradient of the value by the raw logits that `q_log_NV` came from."""
    total_N1 = slopes.weighted_NV.sum(-1, keepdim=True)
    return torch.addcmul(slopes.weighted_NV, q_log_NV.exp(), total_N1, value=-1.0) / temperature


_Pair = tuple[Tensor, Tensor]


def _forward_kl(p_log: Tensor, q_log: Tensor, spec: LossSpec) -> _Pair:
    p = p_log.exp()
    return torch.linalg.vecdot(p, p_log - q_log), -p


def _reverse_kl(p_log: Tensor, q_log: Tensor, spec: LossSpec) -> _Pair:
    weighted = q_log.exp() * (q_log - p_log)
    return weighted.sum(-1), weighted


def _jsd(p_log: Tensor, q_log: Tensor, spec: LossSpec) -> _Pair:
    m_log = _mixture(p_log, q_log, spec.beta)
    weighted = (1 - spec.beta) * q_log.exp() * (q_log - m_log)
    return spec.beta * torch.linalg.vecdot(p_log.exp(), p_log - m_log) + weighted.sum(-1), weighted


def _skew_forward_kl(p_log: Tensor, q_log: Tensor, spec: LossSpec) -> _Pair:
    m_log = _mixture(p_log, q_log, spec.skew)
    weighted = (p_log + q_log - m_log).exp().mul_(spec.skew - 1)
    return torch.linalg.vecdot(p_log.exp(), p_log - m_log), weighted


def _skew_reverse_kl(p_log: Tensor, q_log: Tensor, spec: LossSpec) -> _Pair:
    m_log = _mixture(q_log, p_log, spec.skew)
    terms = q_log.exp() * (q_log - m_log)
    return terms.sum(-1), terms - spec.skew * (2 * q_log - m_log).exp()


def _total_variation(p_log: Tensor, q_log: Tensor, spec: LossSpec) -> _Pair:
    q = q_log.exp()
    gap = q - p_log.exp()
    return gap.abs().sum(-1) / 2, q * gap.sign_() / 2


_SLOPES: dict[Kind, Callable[[Tensor, Tensor, LossSpec], _Pair]] = {
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "jsd": _jsd,
    "skew_forward_kl": _skew_forward_kl,
    "skew_reverse_kl": _skew_reverse_kl,
    "total_variation": _total_variation,
}


def _mixture(a_log: Tensor, b_log: Tensor, weight: float) -> Tensor:
    """Return log(weight a + (1 - weight) b), for a weight in [0, 1)."""
    if weight == 0:
        return b_log
    return torch.logaddexp(a_log + math.log(weight), b_log + math.log1p(-weight))
