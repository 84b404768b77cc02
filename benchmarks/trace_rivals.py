"""What else is proposed for the question, at the same queries: green lists, membership inference, STAMP, likeness of text.

Each returns a p-value, or a yes or no, from what a suspect says about the same prompts that the coins have.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import stats

from limbeck.model import LocalModel
from limbeck.trace.likest import overlap
from limbeck.trace.text_only import rank_p_value

GAMMA = 0.5
"""Share of the vocabulary that is green after each token."""
DELTA = 2.0
"""What a green token's logit gains."""
KEYS = 99
"""Other keys that a text is tested against."""


@cache
def green(previous: int, vocabulary: int, key: int = 0) -> torch.Tensor:
    """Return which tokens are green after a token (KGW, Kirchenbauer et al., ICML 2023, h = 1)."""
    seed = int.from_bytes(hashlib.sha256(f"{key} {previous}".encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(vocabulary, generator=generator) < GAMMA * vocabulary


@dataclass
class Marked:
    """A model whose logits favour green tokens; called as a `transformers` model is."""

    model: Any

    def __post_init__(self) -> None:
        """Take over what writing asks of a model, and lay the lists out."""
        self.device = self.model.device
        self.config = self.model.config
        count = int(self.config.vocab_size)
        self._green_VV = torch.stack([green(t, count) for t in range(count)])

    def __call__(self, tokens_BT: torch.Tensor, **inputs: Any) -> Any:
        """Return the model's reply with the bias added at the last position."""
        reply = self.model(tokens_BT, **inputs)
        reply.logits = reply.logits.clone()
        reply.logits[:, -1] += DELTA * self._green_VV[tokens_BT[:, -1]].float()
        return reply


def radioactivity(texts: Sequence[str], local: LocalModel, *, rivals: int = KEYS) -> float:
    """Return the p-value of too many green tokens in a suspect's text (Sander et al., arXiv 2402.14904, closed model).

    Each pair of tokens counts once, so that repetitions do not pass for evidence. Common pairs are green or red for good,
    so that no text has a share of exactly one half: the share under the real key is ranked among that of other keys.
    """
    count = int(local.model.config.vocab_size)
    pairs: set[tuple[int, int]] = set()
    for ids in local.tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        pairs |= set(pairwise(ids))
    after: dict[int, list[int]] = {}
    for a, b in pairs:
        after.setdefault(a, []).append(b)
    hits = [
        sum(int(green(a, count, key)[rest].sum()) for a, rest in after.items())
        for key in range(rivals + 1)
    ]
    return rank_p_value(hits[0], hits[1:])


def membership(member_I: Sequence[float], other_I: Sequence[float]) -> float:
    """Return the p-value of a reference-based membership test: served answers against texts that were not served.

    The statistic is l_S - l_R. The others are what other accounts were served: drawn alike, assigned by lot, and so a
    better set of non-members than anybody has outside such a design. Welch's test, one-sided.
    """
    return float(stats.ttest_ind(member_I, other_I, equal_var=False, alternative="greater").pvalue)


def stamp(
    lean_I: Sequence[tuple[float, float]], bytes_I: Sequence[tuple[int, int]], bit_I: Sequence[int]
) -> float:
    """Return the p-value of a paired t-test on log-likelihood per byte, served less withheld (STAMP, arXiv 2504.13416)."""
    rate_I2 = np.asarray(lean_I) / np.maximum(1, np.asarray(bytes_I))
    return paired_t(rate_I2[:, 1] - rate_I2[:, 0], bit_I)


def paired_t(d_I: Sequence[float] | np.ndarray, bit_I: Sequence[int]) -> float:
    """Return the p-value of Student's paired test on our own d, for a number of coins that was fixed beforehand."""
    signed = np.asarray(d_I) * (2 * np.asarray(bit_I) - 1)
    return float(stats.ttest_1samp(signed, 0.0, alternative="greater").pvalue)


def likest(texts: Sequence[str], candidates: dict[str, Sequence[str]]) -> str:
    """Return the candidate teacher whose answers a suspect's text is likest to, by overlap of word pairs."""
    scores = {
        name: float(np.mean([overlap(a, b) for a, b in zip(texts, theirs, strict=True)]))
        for name, theirs in candidates.items()
    }
    return max(scores, key=lambda name: (scores[name], name))
