"""Which loss positions of a step are trained on: all of them, or those that promise the most.

Leaving positions out changes the objective: its expectation is no longer the mean over all of them.
Selection by the student's entropy is that of SE-KD (arXiv 2602.01395).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from limbeck.distill.packing import Batch
from limbeck.distill.targets import Bools, Floats, Ints
from limbeck.distill.torch_targets import TorchTargets
from limbeck.errors import RecipeError

Choice = Literal["student_entropy", "teacher_entropy", "random"]
"""By which measure positions are kept: the larger, the sooner."""

TILE_BYTES = 16 * 2**20
"""Size of a tile of float32 logits while the student's entropies are computed."""


@dataclass(frozen=True, slots=True)
class Selection:
    """How many loss positions are kept, and which.

    Raises:
        RecipeError: A fraction out of its range.
    """

    fraction: float = 1.0
    """Share of the loss positions that is kept, in (0, 1]; 1 keeps all."""
    choice: Choice = "student_entropy"
    """`teacher_entropy` and `random` choose among all positions of an optimiser step, whatever its
    micro-batches. `student_entropy` chooses within each micro-batch, for the student must read a
    position before its entropy is known, and only a micro-batch's states are held at once."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise RecipeError(f"train.positions must be above 0 and at most 1, got {self.fraction}")

    @property
    def student_fraction(self) -> float:
        """Share of a micro-batch's positions that the student keeps in its own forward, in (0, 1]."""
        return self.fraction if self.choice == "student_entropy" else 1.0


def kept_count(positions: int, fraction: float) -> int:
    """Return how many of so many positions are kept: the nearest whole number, at least 1 of any."""
    return min(positions, max(1, round(fraction * positions)))


def most_uncertain(entropy_N: npt.NDArray[np.floating], fraction: float) -> Ints:
    """Return the ascending indices of the positions of largest entropy; of equals the earlier.

    What is not a number counts as largest, so that a broken student is not hidden by leaving it out.
    """
    order_N = np.argsort(-np.nan_to_num(entropy_N, nan=np.inf), kind="stable")
    return np.sort(order_N[: kept_count(len(entropy_N), fraction)])


def chosen_in_step(
    selection: Selection, entropies: Sequence[Floats], *, seed: int, step: int
) -> list[Bools]:
    """Return, for each row of a step, which of its loss positions are kept before the student is asked.

    One choice is made over all rows together, so it does not depend on how they are spread over
    micro-batches and processes. Where the student chooses, all are kept so far.

    Args:
        selection: How many, and by which measure.
        entropies: The teacher's entropy at each row's loss positions, in nats; rows in the step's order.
        seed: Of the run; with `step` it decides a random choice.
        step: From 1.
    """
    lengths = [len(entropy) for entropy in entropies]
    is_kept_N = np.ones(sum(lengths), dtype=np.bool_)
    if selection.fraction < 1 and selection.student_fraction == 1:
        measure_N = (
            np.random.default_rng((seed, step)).random(sum(lengths))
            if selection.choice == "random"
            else np.concatenate([np.zeros(0, np.float32), *entropies])
        )
        is_kept_N[:] = False
        is_kept_N[most_uncertain(measure_N, selection.fraction)] = True
    return np.split(is_kept_N, np.cumsum(lengths)[:-1])


def narrow(
    batch: Batch, targets: TorchTargets | None, kept_M: Tensor
) -> tuple[Batch, TorchTargets | None]:
    """Return a batch and its targets with only some of their loss positions.

    Every token is still read; only the loss leaves positions out.

    Args:
        batch: N loss positions.
        targets: What the teacher said at them; None stays None.
        kept_M: Ascending indices into the N loss positions, int64.
    """
    if len(kept_M) == len(batch.loss_N):
        return batch, targets
    kept_M = kept_M.to(batch.loss_N.device)
    narrowed = replace(batch, loss_N=batch.loss_N[kept_M], next_N=batch.next_N[kept_M])
    return narrowed, None if targets is None else _narrow_targets(targets, kept_M)


def _narrow_targets(targets: TorchTargets, kept_M: Tensor) -> TorchTargets:
    kept_M = kept_M.to(targets.row_E.device)
    is_kept_N = torch.zeros(len(targets), dtype=torch.bool, device=kept_M.device)
    is_kept_N[kept_M] = True
    new_row_N = is_kept_N.cumsum(0) - 1
    is_kept_E = is_kept_N[targets.row_E]
    counts_M = targets.offsets_N1.diff()[kept_M.cpu()]
    return TorchTargets(
        offsets_N1=torch.cat([counts_M.new_zeros(1), counts_M.cumsum(0)]),
        row_E=new_row_N[targets.row_E[is_kept_E]],
        ids_E=targets.ids_E[is_kept_E],
        weights_E=targets.weights_E[is_kept_E],
        is_head_E=targets.is_head_E[is_kept_E],
        tail_N=targets.tail_N[kept_M],
        entropy_N=targets.entropy_N[kept_M],
    )


@torch.no_grad()
def student_entropies(hidden_ND: Tensor, weight_VD: Tensor, *, tile: int | None = None) -> Tensor:
    """Return the entropy of softmax(hidden @ weight^T) at each position, float32 [N], in nats.

    Logits are computed a tile at a time, in the weight's or autocast's dtype, and widened to float32.

    Args:
        hidden_ND: The student's last hidden states.
        weight_VD: Its output head.
        tile: Positions computed at a time; None fits their logits into `TILE_BYTES`.
    """
    rows = tile or max(1, TILE_BYTES // (4 * len(weight_VD)))
    device = hidden_ND.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden_ND, weight_VD = hidden_ND.to(dtype), weight_VD.to(dtype)
    parts = [_entropies((tile_RD @ weight_VD.t()).float()) for tile_RD in hidden_ND.split(rows)]
    return torch.cat(parts) if parts else hidden_ND.new_zeros(0, dtype=torch.float32)


def _entropies(z_RV: Tensor) -> Tensor:
    """Return log(sum e^z) - sum(e^z z) / sum(e^z), with z shifted so that its maximum is 0."""
    z_RV = z_RV - z_RV.amax(-1, keepdim=True)
    e_RV = z_RV.exp()
    total_R = e_RV.sum(-1)
    return (total_R.log() - torch.linalg.vecdot(e_RV, z_RV) / total_R).clamp(
        min=0.0, max=math.log(z_RV.shape[-1])
    )


def objective_notes(selection: Selection, *, control: bool) -> tuple[str, ...]:
    """Return what a reader must know of the objective, one sentence each; none where nothing changed.

    Args:
        selection: What was kept.
        control: Whether a cross-entropy control was trained beside the student.
    """
    if selection.fraction == 1:
        return ()
    which = {
        "teacher_entropy": "those of each optimiser step at which the teacher's entropy is largest",
        "student_entropy": "those of each micro-batch at which the student's own entropy is largest",
        "random": "drawn at random in each optimiser step",
    }[selection.choice]
    share = f"{selection.fraction:.4g}"
    changed = (
        f"The objective was changed: a fraction of {share} of the loss positions is trained on, {which} "
        f"(train.positions = {share}, train.position_choice = {selection.choice}); held-out figures are "
        "over all positions."
    )
    if not control:
        return (changed,)
    if selection.choice == "student_entropy":
        return (
            changed,
            "The cross-entropy control keeps the same fraction by its own entropy, so not always the "
            "same positions.",
        )
    return (changed, "The cross-entropy control trains on the same positions as the student.")
