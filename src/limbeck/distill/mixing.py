"""Which documents a step of on-policy training reads from the store, and which the student writes anew.

An epoch visits every training document once, in an order of its own: either as it lies in the store or as a
prompt that the student answers. All of it is a function of seed and step, so it is known before a step begins.
"""

import math
from dataclasses import dataclass

import numpy as np

from limbeck.distill.corpus import Prompt
from limbeck.distill.targets import Document


@dataclass(frozen=True, slots=True)
class Mixing:
    """How training documents are dealt out to steps."""

    documents: int
    """Training documents, at least 1."""
    per_step: int
    """Documents a step; an epoch's last step may have fewer."""
    fraction: float
    """Share of them that the student writes, in [0, 1], kept over every stretch of steps."""
    seed: int

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return -(-self.documents // self.per_step)

    def steps(self, epochs: float) -> int:
        """Return the steps of so many passes over the documents."""
        return max(1, round(epochs * self.per_epoch))


@dataclass(frozen=True, slots=True)
class Mixed:
    """One step's documents, by number."""

    own: tuple[int, ...]
    """Answered by the student."""
    read: tuple[int, ...]
    """Read from the store."""


def mixed(mixing: Mixing, step: int) -> Mixed:
    """Return the documents of a step, counted from 1.

    Before any step, the documents written so far are the fraction of those seen so far, rounded down; an order
    drawn anew for each epoch decides which ones they are.
    """
    epoch, index = divmod(step - 1, mixing.per_epoch)
    order = np.random.default_rng((mixing.seed, epoch)).permutation(mixing.documents)
    taken = order[index * mixing.per_step :][: mixing.per_step].tolist()
    before = epoch * mixing.documents + index * mixing.per_step
    own = math.floor(mixing.fraction * (before + len(taken))) - math.floor(mixing.fraction * before)
    return Mixed(tuple(taken[:own]), tuple(taken[own:]))


def prompt_of(document: Document, text_tokens: int) -> Prompt:
    """Return what a document gives to go on from: all before its last answer, or the beginning of a plain text.

    Args:
        document: A chat, or a plain text, all of which is predicted; with a loss position.
        text_tokens: Tokens of a plain text, at most half of it.
    """
    places = np.flatnonzero(document.loss_T)
    breaks = np.flatnonzero(np.diff(places) > 1)
    start = int(places[breaks[-1] + 1 if len(breaks) else 0]) + 1
    if places[0] == 0 and not len(breaks):
        start = max(1, min(text_tokens, len(document.tokens_T) // 2))
    return Prompt(document.tokens_T[:start], document.heldout, document.key)
