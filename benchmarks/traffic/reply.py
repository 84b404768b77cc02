"""Composed replies: words of the prompt and public prose, ignorant of what is asked next."""

from collections.abc import Sequence

import numpy as np

from traffic.account import pick
from traffic.material import words_of

_OPENINGS = (
    "Sure.", "Here is what I can say about", "In short:", "Certainly, on", "Let us look at", "A few points on",
    "Good question about", "The main thing about",
)  # fmt: skip
_STEPS = ("First,", "Then", "After that,", "Therefore", "So in the end")


def prose(rng: np.random.Generator, prompt: str, passages: Sequence[str]) -> str:
    """Return a reply of a few sentences."""
    said = list(words_of(prompt[:600]))
    echo = " ".join(pick(rng, said) for _ in range(min(6, len(said)))) if said else "that"
    body = pick(rng, passages)
    return f"{pick(rng, _OPENINGS)} {echo}. {body[: int(rng.integers(80, 420))]}"


def label(rng: np.random.Generator, labels: Sequence[str]) -> str:
    """Return a reply of one label."""
    return pick(rng, labels)


def reasoning(rng: np.random.Generator, prompt: str, passages: Sequence[str]) -> str:
    """Return a reply in steps."""
    said = list(words_of(prompt[:600])) or ["that"]
    steps = [
        f"{step} {' '.join(pick(rng, said) for _ in range(5))}, {pick(rng, passages)[:90]}."
        for step in _STEPS
    ]
    return "\n".join(steps)
