"""Are two models' inner states alike? Centred kernel alignment (CKA) of layers at the coins' prompts.

Array letters: N prompts, D and E widths of the two models.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from limbeck.model import LocalModel
from limbeck.trace.likeness import Finding

Floats = npt.NDArray[np.float64]
NAME = "activations, CKA"
PROMPTS = 64
"""At the most; their number bounds what the comparison costs."""
_FEWEST = 8
_TOKENS = 256
"""Of a prompt, from its beginning."""
_DEPTHS = (0.25, 0.5, 0.75, 1.0)
"""Layers that are compared, as shares of each model's depth."""


def cka_finding(suspect: LocalModel, teacher: LocalModel, prompts: Sequence[str]) -> Finding:
    """Compare layers at equal relative depth: how alike do the two models lay out the same prompts?

    A prompt's activation is the mean over its tokens, each model reading it with its own tokenizer, so neither
    vocabularies nor widths need to be equal.
    """
    prompts = list(dict.fromkeys(prompts))[:PROMPTS]
    means = (
        "high: both lay out these prompts alike, as models do that share an ancestor, a corpus or just a language; "
        "it says nothing of whose answers were learned"
    )
    if len(prompts) < _FEWEST:
        few = f"{len(prompts)} different prompts are fewer than the {_FEWEST} that it takes"
        return Finding(NAME, "not compared", few, "no test was made")
    mine, theirs = (layers(model, prompts) for model in (suspect, teacher))
    if not all(np.isfinite(a).all() for a in (*mine, *theirs)):
        return Finding(
            NAME, "not compared", "an activation is not a finite number", "no test was made"
        )
    found = [debiased_cka(a_ND, b_NE) for a_ND, b_NE in zip(mine, theirs, strict=True)]
    return Finding(
        NAME,
        f"{min(found):.3f} to {max(found):.3f} at {len(found)} depths over {len(prompts)} prompts, mean "
        f"{np.mean(found):.3f}",
        means,
        "prompts cannot be permuted for a test: all models that read the language lay them out somewhat alike",
        likeness=float(np.mean(found)),
    )


@torch.inference_mode()
def layers(local: LocalModel, prompts: Sequence[str]) -> list[Floats]:
    """Return activations [N, D] after the layers at `_DEPTHS`, each the mean over a prompt's tokens, as float64."""
    model: Any = local.model
    rows: list[list[Floats]] = []
    for prompt in prompts:
        ids = local.tokenizer(prompt, verbose=False)["input_ids"][:_TOKENS] or [0]
        tokens_BT = torch.tensor([ids], device=model.device)
        states = model(tokens_BT, output_hidden_states=True, use_cache=False).hidden_states
        count = len(states) - 1
        at = [max(1, round(depth * count)) for depth in _DEPTHS]
        rows.append([states[n][0].float().mean(dim=0).cpu().double().numpy() for n in at])
    return [np.stack(column) for column in zip(*rows, strict=True)]


def debiased_cka(a_ND: Floats, b_NE: Floats) -> float:
    """Return linear CKA of two sets of activations at the same N places, at most 1; near 0 where they are independent.

    CKA (Kornblith et al., ICML 2019) with the unbiased estimate of HSIC (Song et al., JMLR 13, 2012, equation 5). The
    plain estimate tends to 1 for any two models whose width is much greater than N.

    Raises:
        ValueError: Fewer than 4 places, or not the same number in both.
    """
    if len(a_ND) != len(b_NE) or len(a_ND) < 4:
        raise ValueError(
            f"CKA needs the same places in both, at least 4, got {len(a_ND)} and {len(b_NE)}"
        )
    k_NN, l_NN = (_kernel(x) for x in (a_ND, b_NE))
    norm = _hsic(k_NN, k_NN) * _hsic(l_NN, l_NN)
    return _hsic(k_NN, l_NN) / norm**0.5 if norm > 0 else 0.0


def _kernel(x_ND: Floats) -> Floats:
    """Return the inner products of centred activations, without their own squares."""
    centred_ND = x_ND - x_ND.mean(axis=0)
    scale = float(np.abs(centred_ND).max())
    centred_ND = centred_ND / scale if scale > 0 else centred_ND
    k_NN = centred_ND @ centred_ND.T
    np.fill_diagonal(k_NN, 0.0)
    return k_NN


def _hsic(k_NN: Floats, l_NN: Floats) -> float:
    n = len(k_NN)
    both = float((k_NN * l_NN).sum())
    apart = float(k_NN.sum() * l_NN.sum()) / ((n - 1) * (n - 2))
    crossed = 2 * float(k_NN.sum(axis=0) @ l_NN.sum(axis=1)) / (n - 2)
    return (both + apart - crossed) / (n * (n - 3))
