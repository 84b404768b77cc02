"""The divergence from sparse targets, and its gradient by the student's logits.

A sparse loss of position n depends on the student q only through log q at its entries and the log
of the student's mass outside the teacher's head. Two treatments:

*Sampled.* Forward KL where the target has tail samples:  -H(p) - sum over all entries of weight *
log q.  Its expectation over the samples is KL(p || q), and its expected gradient the dense one. A
single value may be negative.

*Coarse.* The divergence between two distributions over {each head token, everything else}. By the
data-processing inequality it is at most the dense one; it is 0 with gradient 0 where student and
teacher agree on every bucket. Forward KL on a head with tail mass and no samples is always this: it
is what the tail mass is kept for. The other divergences take it only when `coarse_tail` says so.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.distill.losses import TERMS
from limbeck.distill.objective import LossSpec
from limbeck.distill.torch_targets import TorchTargets


@dataclass(frozen=True, slots=True)
class RowGradient:
    """The gradient of any sparse loss with respect to a tile of logits z.

    d loss / d z_nj = coefficient_n q_nj + the sum of the corrections at (n, j).
    """

    coefficient_N: Tensor
    correction_E: Tensor


def sparse_loss(
    spec: LossSpec, targets: TorchTargets, log_q_E: Tensor, log_q_tail_N: Tensor
) -> Tensor:
    """Return the divergence of each position in nats, without T^2 and without cross-entropy.

    Args:
        spec: Must pass `objective.check_tail`.
        targets: What the teacher said.
        log_q_E: The student's log-probability of every entry, at `spec.temperature`.
        log_q_tail_N: Log of the student's mass outside the head, finite.
    """
    term = TERMS[spec.kind]
    weights_E = targets.weights_E.to(log_q_E.dtype)
    tail_log_N = targets.tail_N.to(log_q_E.dtype).log()
    at_head_E = torch.where(targets.is_head_E, term(weights_E.log(), log_q_E, spec), 0.0)
    at_tail_N = term(tail_log_N, log_q_tail_N, spec)
    if spec.kind != "forward_kl" or spec.coarse_tail:
        return at_tail_N.index_add(0, targets.row_E, at_head_E)
    sampled_N = torch.zeros_like(targets.tail_N, dtype=torch.bool)
    sampled_N[targets.row_E[~targets.is_head_E]] = True
    at_entry_E = torch.where(sampled_N[targets.row_E], -weights_E * log_q_E, at_head_E)
    alone_N = torch.where(sampled_N, -targets.entropy_N.to(log_q_E.dtype), at_tail_N)
    return alone_N.index_add(0, targets.row_E, at_entry_E)


def loss_and_gradient(
    spec: LossSpec, targets: TorchTargets, log_q_E: Tensor, log_q_tail_N: Tensor
) -> tuple[Tensor, RowGradient]:
    """Return `sparse_loss` and its gradient with respect to the logits that `log_q` came from.

    Only the derivatives by the few gathered log-probabilities come from autograd; the rest is
    closed form.
    """
    with torch.enable_grad():
        said = (log_q_E.detach().requires_grad_(), log_q_tail_N.detach().requires_grad_())
        loss_N = sparse_loss(spec, targets, *said)
        slope_E, slope_tail_N = torch.autograd.grad(loss_N.sum(), said)
    return loss_N.detach(), _row_gradient(targets, slope_E, slope_tail_N, log_q_E, log_q_tail_N)


def _row_gradient(
    targets: TorchTargets,
    slope_E: Tensor,
    slope_tail_N: Tensor,
    log_q_E: Tensor,
    log_q_tail_N: Tensor,
) -> RowGradient:
    """Carry slopes, the derivatives by log q and by the log of the tail's mass, on to the logits.

    With Q the student's mass outside the head of position n,

        d log q_e / d z_j = [j = e] - q_j,    d log Q / d z_j = [j outside the head] q_j / Q - q_j,

    so every logit shares the coefficient  slope_tail / Q - slope_tail - sum_e slope_e,  and only
    entries differ.
    """
    per_mass_N = slope_tail_N * torch.exp(-log_q_tail_N)
    coefficient_N = (per_mass_N - slope_tail_N).index_add(0, targets.row_E, -slope_E)
    in_head_E = torch.where(targets.is_head_E, log_q_E.exp() * per_mass_N[targets.row_E], 0.0)
    return RowGradient(coefficient_N, slope_E - in_head_E)
