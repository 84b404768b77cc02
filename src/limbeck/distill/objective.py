"""What training minimises: one divergence, its temperature, and its share of plain cross-entropy.

The objective of one loss position, with teacher p, student logits z and realised next token y, is

    (1 - cross_entropy) * T^2 * D(p, softmax(z / T))  +  cross_entropy * (-log softmax(z)[y]),

and a batch's loss is the sum over its positions divided by the number of loss positions of the
whole optimiser step, wherever they were computed.

`T^2` keeps the size of the gradient: softening by T divides it by about T^2 (Hinton et al. 2015,
section 2). It is applied in `LossSpec.divergence_weight`, and nowhere else. This module needs no
torch.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from limbeck.errors import LossError, RecipeError

Kind = Literal[
    "forward_kl",
    "reverse_kl",
    "jsd",
    "skew_forward_kl",
    "skew_reverse_kl",
    "total_variation",
    "cross_entropy",
]
"""Divergences are defined in `losses`; `cross_entropy` alone reads no teacher."""


@dataclass(frozen=True, slots=True)
class LossSpec:
    """The objective of a run.

    Raises:
        RecipeError: A field out of its range; the message names `loss.<field>`.
    """

    kind: Kind = "forward_kl"
    temperature: float = 1.0
    """Above 0. Softens teacher and student in the divergence, never in the cross-entropy."""
    skew: float = 0.1
    """In [0, 1): weight of the first side in the mixture of the skew divergences."""
    beta: float = 0.5
    """In (0, 1): weight of the teacher in `jsd`; small beta is not forward KL."""
    cross_entropy: float = 0.0
    """In [0, 1]: share of cross-entropy on the realised next token, at temperature 1."""
    coarse_tail: bool = False
    """Compare over {each head token, everything else}: a lower bound of the divergence.

    It does not see how the student spreads the mass outside the teacher's head.
    """

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise RecipeError(
                f"loss.kind must be one of {', '.join(get_args(Kind))}, got {self.kind}"
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise RecipeError(
                f"loss.temperature must be above 0 and finite, got {self.temperature}"
            )
        if self.kind == "cross_entropy" and self.temperature != 1.0:
            raise RecipeError(
                "loss.temperature must be 1 with loss.kind = cross_entropy, "
                f"which reads no teacher; got {self.temperature}"
            )
        if not 0 <= self.skew < 1:
            raise RecipeError(f"loss.skew must be at least 0 and below 1, got {self.skew}")
        if not 0 < self.beta < 1:
            raise RecipeError(
                f"loss.beta must lie strictly between 0 and 1, got {self.beta}; "
                "at the ends the divergence is 0, use loss.kind = forward_kl or reverse_kl"
            )
        if not 0 <= self.cross_entropy <= 1:
            raise RecipeError(
                f"loss.cross_entropy must lie between 0 and 1, got {self.cross_entropy}"
            )

    @property
    def needs_targets(self) -> bool:
        """True when the objective reads what the teacher said."""
        return self.kind != "cross_entropy"

    @property
    def divergence_weight(self) -> float:
        """Factor of the divergence, T^2 included; the only place where T^2 is applied."""
        return (1 - self.cross_entropy) * self.temperature**2 if self.needs_targets else 0.0

    @property
    def cross_entropy_weight(self) -> float:
        """Factor of the cross-entropy on the realised next token."""
        return self.cross_entropy if self.needs_targets else 1.0


def check_tail(spec: LossSpec) -> None:
    """Raise LossError when the loss needs the tail in full and sparse targets only know its mass.

    Forward KL passes: head and tail mass bound it from below, and random tail samples estimate it
    without bias.
    """
    if spec.kind in {"forward_kl", "cross_entropy"} or spec.coarse_tail:
        return
    raise LossError(
        f"loss.kind = {spec.kind} needs the teacher's dense distribution and sparse targets keep "
        "only the mass of the tail; use forward_kl, or loss.coarse_tail = true for a lower bound "
        "over {head tokens, everything else}"
    )


def check_supported(spec: LossSpec, captured_temperature: float) -> None:
    """Raise LossError when targets captured at a temperature cannot support the objective."""
    check_tail(spec)
    if spec.needs_targets and spec.temperature != captured_temperature:
        raise LossError(
            f"loss.temperature = {spec.temperature}, but the targets were captured at "
            f"{captured_temperature}; "
            "truncated targets cannot be re-tempered; "
            f"capture with temperature = {spec.temperature}, or train at {captured_temperature}"
        )
