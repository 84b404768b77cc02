"""A model answers prompts: a batch at a time, a token of every answer at a time, with a key-value cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck.distill.beginning import Beginning
from limbeck.distill.cache import growing_cache
from limbeck.distill.targets import Ids

_COMPACT_BELOW = 0.75
"""A batch drops its finished rows when fewer than this share still write."""
_DRAW_ROWS = 8
"""Rows that a token is drawn for at a time: 8 x 49,152 float64 is 3 MB, which a core's cache holds."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The next token of the answers that still go on, on the CPU but for the logits."""

    row_B: Tensor
    """Which prompts these are, int64, ascending."""
    next_B: Tensor
    """The tokens drawn, int64."""
    logits_BV: Tensor
    """What they were drawn from, before the temperature, in float32."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn, and where it stops."""

    temperature: float
    """Above 0."""
    max_new_tokens: int
    """Tokens of an answer at the most."""
    ends: frozenset[int]
    """Tokens that end a turn; the first of them is an answer's last token."""


@torch.inference_mode()
def draw_answers(
    model: Any,
    prompts: Sequence[Ids],
    sampling: Sampling,
    generator: torch.Generator,
    beginning: Beginning | None = None,
) -> Iterator[Drawn]:
    """Yield one token of every unfinished answer at a time.

    Args:
        model: A causal `transformers` model in evaluation mode.
        prompts: Their tokens, each at least one; read as one batch, padded on the left.
        sampling: How.
        generator: On the CPU. It draws one number for every row and token; the caller may draw in between.
        beginning: What the model has read before each of the prompts.
    """
    device = model.device
    ends_E = torch.tensor(sorted(sampling.ends), dtype=torch.long, device=device)
    tokens_BT, real_BT = (x.to(device) for x in _left_padded(prompts, len(beginning or ())))
    row_B = torch.arange(len(prompts), device=device)
    writing_B = torch.ones_like(row_B, dtype=torch.bool)
    cache = growing_cache(model.config)
    if beginning is not None:
        beginning.fill(cache, len(prompts))
    positions_BT = (real_BT.cumsum(-1) - 1).clamp(min=0)[:, -tokens_BT.shape[1] :]
    for _ in range(sampling.max_new_tokens):
        reply = model(
            tokens_BT,
            attention_mask=real_BT,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BV = reply.logits[:, -1].float()
        next_B = _draw(logits_BV, sampling.temperature, generator)
        live_BV = logits_BV if writing_B.all() else logits_BV[writing_B]
        yield Drawn(row_B[writing_B].cpu(), next_B[writing_B].cpu(), live_BV)
        writing_B = writing_B & ~torch.isin(next_B, ends_E)
        if not writing_B.any():
            break
        real_BT = torch.cat([real_BT, torch.ones_like(real_BT[:, :1])], dim=1)
        tokens_BT, positions_BT = next_B[:, None], positions_BT[:, -1:] + 1
        if writing_B.float().mean() < _COMPACT_BELOW:
            kept = writing_B.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            tokens_BT, positions_BT, real_BT = tokens_BT[kept], positions_BT[kept], real_BT[kept]
            row_B, writing_B = row_B[kept], writing_B[kept]


def write_answers(
    model: Any, prompts: Sequence[Ids], sampling: Sampling, generator: torch.Generator
) -> list[list[int]]:
    """Return the tokens of each prompt's answer; the arguments are those of `draw_answers`."""
    answers: list[list[int]] = [[] for _ in prompts]
    for drawn in draw_answers(model, prompts, sampling, generator):
        for row, token in zip(drawn.row_B.tolist(), drawn.next_B.tolist(), strict=True):
            answers[row].append(token)
    return answers


def _left_padded(prompts: Sequence[Ids], known: int) -> tuple[Tensor, Tensor]:
    """Return tokens [B, T] and the attention mask [B, known + T], after `known` tokens read before."""
    width = max(map(len, prompts))
    tokens_BT = torch.zeros(len(prompts), width, dtype=torch.long, device="cpu")
    real_BT = torch.ones(len(prompts), known + width, dtype=torch.long, device="cpu")
    for row, prompt_T in enumerate(prompts):
        start = width - len(prompt_T)
        tokens_BT[row, start:] = torch.from_numpy(prompt_T).long()
        real_BT[row, known : known + start] = 0
    return tokens_BT, real_BT


def _draw(logits_BV: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    `torch.multinomial` makes a random number for every token of the vocabulary: at 128 rows that took 124 ms
    of a 370 ms step on two cores, and this takes 5.
    """
    uniform_B1 = torch.rand(
        len(logits_BV), 1, generator=generator, dtype=torch.float64, device="cpu"
    )
    uniform_B1 = uniform_B1.to(logits_BV.device)
    rows = zip(logits_BV.split(_DRAW_ROWS), uniform_B1.split(_DRAW_ROWS), strict=True)
    return torch.cat([_inverted(z_RV, u_R1, temperature) for z_RV, u_R1 in rows])


def _inverted(logits_RV: Tensor, uniform_R1: Tensor, temperature: float) -> Tensor:
    scaled_RV = logits_RV if temperature == 1 else logits_RV / temperature
    cumulative_RV = torch.softmax(scaled_RV, dim=-1).cumsum(-1, dtype=torch.float64)
    point_R1 = uniform_R1 * cumulative_RV[:, -1:]
    drawn_R1 = torch.searchsorted(cumulative_RV, point_R1, right=True)
    return drawn_R1[:, 0].clamp(max=logits_RV.shape[1] - 1)
