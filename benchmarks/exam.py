"""Questions with one right answer each: ask a model all of them, and mark what it wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import binomtest

from limbeck.distill.capture import end_tokens
from limbeck.model import LocalModel

CONFIDENCE = 0.95
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Share:
    """A share of right answers with its Wilson interval at `CONFIDENCE`."""

    right: int
    asked: int
    mean: float
    low: float
    high: float

    def as_list(self) -> list[float]:
        """Return mean, low and high."""
        return [self.mean, self.low, self.high]


@dataclass(frozen=True, slots=True)
class Duel:
    """Two models on the same questions."""

    only_first: int
    """Questions that the first alone answered right."""
    only_second: int
    p: float
    """Exact two-sided McNemar test: that the two differ so much by chance, were they equally good."""


def share(marks: Sequence[bool]) -> Share:
    """Return the share of right answers.

    The interval is over questions drawn from where these were drawn from; it does not know how a model would
    have come out of another training.
    """
    found = binomtest(sum(marks), len(marks))
    low, high = found.proportion_ci(CONFIDENCE, method="wilson")
    return Share(sum(marks), len(marks), sum(marks) / len(marks), float(low), float(high))


def duel(first: Sequence[bool], second: Sequence[bool]) -> Duel:
    """Compare two models question by question."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    apart = only_first + only_second
    p = float(binomtest(only_first, apart).pvalue) if apart else 1.0
    return Duel(only_first, only_second, p)


@torch.inference_mode()
def answer(
    local: LocalModel, prompts: Sequence[Sequence[int]], *, most: int, batch: int = _BATCH
) -> list[str]:
    """Return the likeliest answer to each prompt, up to the end of the turn and of at most `most` tokens.

    Prompts of similar length are answered together, left-padded, with a key-value cache.
    """
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    answers = [""] * len(prompts)
    ends = sorted(end_tokens(local))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        written = _write(local.model, [prompts[n] for n in chosen], ends, most)
        for n, ids in zip(chosen, written, strict=True):
            answers[n] = local.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return answers


def _write(
    model: Any, prompts: Sequence[Sequence[int]], ends: Sequence[int], most: int
) -> list[list[int]]:
    width = max(map(len, prompts))
    tokens_BT = torch.tensor([[ends[0]] * (width - len(p)) + list(p) for p in prompts])
    real_BT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    written_BT = model.generate(
        tokens_BT,
        attention_mask=real_BT,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=most,
        eos_token_id=list(ends),
        pad_token_id=ends[0],
    )
    return [_until(row[width:], ends) for row in written_BT.tolist()]


def _until(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    stop = next((n for n, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[:stop])
