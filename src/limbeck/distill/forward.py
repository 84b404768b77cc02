"""The two halves of a causal language model: hidden states, and the head that turns them into logits."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.distill.packing import attention_mask
from limbeck.errors import StudentError

_PROBE_TOKENS = 8
_PROBE_TOLERANCE = 1e-3
_ROUGH_PROBE_TOLERANCE = 0.3
"""In half precision, of the norm: on the probe's odd text SmolLM2-135M in bfloat16 is off by 0.10 of it where
nothing leaks, and by 0.94 where all of it does. On English, packing moves its distributions by 0.001 nats."""


@dataclass(frozen=True, slots=True)
class Halves:
    """A decoder and its bias-free linear head, for losses that never hold all logits at once."""

    decoder: nn.Module
    head: nn.Linear

    def hidden(self, tokens_BT: Tensor, **inputs: Any) -> Tensor:
        """Return the last hidden states [B, T, D]; `inputs` are attention mask and position ids."""
        return self.decoder(tokens_BT, use_cache=False, **inputs)[0]

    @property
    def layers(self) -> list[nn.Module]:
        """The decoder's repeated blocks, in order; empty where it keeps no list of them."""
        lists = [part for part in self.decoder.children() if isinstance(part, nn.ModuleList)]
        return list(max(lists, key=len, default=nn.ModuleList()))


def check_packs(halves: Halves, config: Any, row_length: int) -> None:
    """Check that documents packed into one row say what each says alone.

    Attention gets a mask of four axes instead of its own. Windows are lost with that, and some attention
    functions do not take one: a probe of two packed documents finds those.

    Args:
        halves: The model; in float32 the probe is at its sharpest.
        config: Its configuration.
        row_length: Tokens of a packed row.

    Raises:
        StudentError: The model reads packed documents differently.
    """
    name = type(halves.decoder).__name__
    window = _window(config)
    if window is not None and window < row_length:
        raise StudentError(
            f"{name} attends within a window of {window} tokens, which packing does not keep; "
            f"set train.row_length to at most {window}, got {row_length}"
        )
    device = halves.head.weight.device
    one_T = torch.arange(_PROBE_TOKENS, device=device) % len(halves.head.weight)
    two_T = one_T.flip(0)
    segments_BT = torch.tensor([[1] * _PROBE_TOKENS + [2] * _PROBE_TOKENS], device=device)
    positions_BT = torch.arange(_PROBE_TOKENS, device=device).repeat(2)[None]
    with torch.no_grad():
        together = halves.hidden(
            torch.cat([one_T, two_T])[None],
            attention_mask=attention_mask(segments_BT),
            position_ids=positions_BT,
        ).nan_to_num(0.0)
        alone = torch.cat([halves.hidden(t[None]) for t in (one_T, two_T)], dim=1).nan_to_num(0.0)
    worst = float((together - alone).abs().max())
    if alone.dtype in {torch.bfloat16, torch.float16}:
        same = bool((together - alone).norm() <= _ROUGH_PROBE_TOLERANCE * alone.norm())
    else:
        same = worst <= _PROBE_TOLERANCE * (1 + float(alone.abs().max()))
    if not same:
        raise StudentError(
            f"{name} reads packed documents differently (hidden states by up to {worst:.3g}); "
            "its attention takes no block-diagonal mask, so it cannot be used here"
        )


def _window(config: Any) -> int | None:
    """Return the shortest attention window of a model, or None where every layer sees everything."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or (kinds is not None and all(k == "full_attention" for k in kinds)):
        return None
    return int(window)


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
    with _without_noise(model), torch.no_grad():
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


@contextmanager
def _without_noise(model: Any) -> Generator[None]:
    """Switch dropout off for a probe, which else would differ from itself."""
    training: bool = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
