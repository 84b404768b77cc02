"""The two halves of a causal language model: hidden states, and the head that turns them into logits."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import StudentError

_PROBE_TOKENS = 8
_PROBE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Halves:
    """A decoder and its bias-free linear head, for losses that never hold all logits at once."""

    decoder: nn.Module
    head: nn.Linear

    def hidden(self, tokens_BT: Tensor, **inputs: Any) -> Tensor:
        """Return the last hidden states [B, T, D]; `inputs` are attention mask and position ids."""
        return self.decoder(tokens_BT, use_cache=False, **inputs)[0]


def split(model: Any) -> Halves:
    """Split a causal model into decoder and head, and check that together they are the model.

    Some architectures scale or cap their logits after the head; the check on a short probe finds those.

    Raises:
        StudentError: The head has a bias or is not linear, or decoder and head are not the whole model.
    """
    head = model.get_output_embeddings()
    name = type(model).__name__
    bias: Tensor | None = getattr(head, "bias", None)  # torch's annotation leaves None out
    if not isinstance(head, nn.Linear) or bias is not None:
        raise StudentError(f"{name} has no bias-free linear head, which training needs")
    halves = Halves(model.base_model, head)
    vocabulary = head.weight.shape[0]
    probe_BT = torch.arange(_PROBE_TOKENS, device=head.weight.device)[None] % vocabulary
    with torch.no_grad():
        ours = head(halves.hidden(probe_BT)).float().nan_to_num(0.0)
        # Broken weights (NaN) are not this check's concern: losses and evaluation name them better.
        theirs = model(probe_BT, use_cache=False).logits.float().nan_to_num(0.0)
    worst = float((ours - theirs).abs().max())
    if not worst <= _PROBE_TOLERANCE * (1 + float(theirs.abs().max())):
        raise StudentError(
            f"{name} changes its logits after the head (by up to {worst:.3g}); "
            "models with scaled or capped logits are not supported"
        )
    return halves
