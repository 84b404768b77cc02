"""Damage done to a right answer on purpose, so that it is known which of two answers is the worse one.

Each way offers candidates, mild first; `damage` takes the first that differs from the original and is wrong by the
caller's own measure. Padding adds words and no content.
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import numpy as np

Damage = Literal["truncate", "shuffle", "negate", "off-topic"]
LADDER: tuple[Damage, ...] = get_args(Damage)
"""The rungs, in the order of the report."""

PADDED_WORDS = 60
"""A padded answer has at least this many words more, and is at least three times as long."""

_FILLER = (
    "This answer has been considered with care and from several points of view.",
    "Every relevant aspect of the question was taken into account before it was written.",
    "It should also be kept in mind that a thorough reply is of great value to the reader.",
    "In addition, the matter was looked at once more in order to be entirely comprehensive.",
    "Overall, the explanation above addresses what was asked in a clear and helpful manner.",
    "For the sake of completeness, the considerations mentioned here were all weighed in full.",
)
_OPPOSITES = {
    "yes": "no",
    "true": "false",
    "correct": "incorrect",
    "right": "wrong",
    "always": "never",
    "all": "none",
    "more": "less",
    "before": "after",
    "increase": "decrease",
    "positive": "negative",
}
_OPPOSITE = {**_OPPOSITES, **{b: a for a, b in _OPPOSITES.items()}}
_COPULA = re.compile(r"\b(is|are|was|were|will|can|does|do|has|have|should|would|could)\b(?! not)")
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[A-Za-z]+")
_SHUFFLES = 8


def damage(
    kind: Damage,
    text: str,
    *,
    elsewhere: str | None,
    wrong: Callable[[str], bool],
    rng: np.random.Generator,
) -> str | None:
    """Return a damaged answer that is wrong, or None where this kind of damage cannot make one.

    Args:
        kind: Which rung of the ladder.
        text: The right answer.
        elsewhere: An answer to another question, for `off-topic`.
        wrong: Whether a text is no longer right; whoever knows the gold says so.
        rng: Draws the order of shuffled words.
    """
    original = text.strip()
    for candidate in _candidates(kind, original, elsewhere, rng):
        damaged = candidate.strip()
        if damaged and damaged != original and wrong(damaged):
            return damaged
    return None


def pad(text: str, rng: np.random.Generator) -> str:
    """Return a text followed by sentences that say nothing, three times as long or longer."""
    words = len(text.split())
    missing = max(PADDED_WORDS, 2 * words)
    order = rng.permutation(len(_FILLER))
    padding: list[str] = []
    while sum(len(sentence.split()) for sentence in padding) < missing:
        padding.append(_FILLER[order[len(padding) % len(order)]])
    return f"{text.rstrip()} {' '.join(padding)}"


def _candidates(
    kind: Damage, text: str, elsewhere: str | None, rng: np.random.Generator
) -> Iterator[str]:
    match kind:
        case "truncate":
            yield from _truncated(text)
        case "shuffle":
            yield from _shuffled(text, rng)
        case "negate":
            yield from _negated(text)
        case "off-topic":
            yield from () if elsewhere is None else (elsewhere,)


def _truncated(text: str) -> Iterator[str]:
    words = text.split(" ")
    for part in (2, 3, 5, 9):
        yield " ".join(words[: len(words) // part])
    for part in (2, 3):
        yield words[0][: len(words[0]) // part]


def _shuffled(text: str, rng: np.random.Generator) -> Iterator[str]:
    words = text.split()
    if len(words) > 2:
        for _ in range(_SHUFFLES):
            yield " ".join(words[i] for i in rng.permutation(len(words)))
    for _ in range(_SHUFFLES):
        yield " ".join("".join(word[i] for i in rng.permutation(len(word))) for word in words)


def _negated(text: str) -> Iterator[str]:
    yield _WORD.sub(_opposite, text)
    yield _COPULA.sub(r"\1 not", text, count=1)
    yield f"It is not true that the answer is: {text}"
    for last in list(_NUMBER.finditer(text))[-1:]:
        yield f"{text[: last.start()]}{int(last.group()) + 1}{text[last.end() :]}"
    yield "None of this is the case."


def _opposite(word: re.Match[str]) -> str:
    found = word.group()
    other = _OPPOSITE.get(found.lower(), found)
    return other.capitalize() if found[0].isupper() and other != found else other
