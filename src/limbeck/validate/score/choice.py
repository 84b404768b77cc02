"""Which choice a model finds likeliest, and whether it is the right one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.validate.tasks import Item, Normalisation


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """What a model says of the choices of one item."""

    log_C: tuple[float, ...]
    """Log-likelihood of each choice after the prompt, nats."""
    tokens_C: tuple[int, ...]
    """Tokens of each choice."""


def normalised(said: Likelihoods, choices: Sequence[str], how: Normalisation) -> list[float]:
    """Return the scores that choices are ranked by.

    Args:
        said: Log-likelihoods and lengths.
        choices: Their texts.
        how: Divide by UTF-8 bytes, by tokens, or not at all.
    """
    match how:
        case "bytes":
            lengths = [len(choice.encode()) for choice in choices]
        case "tokens":
            lengths = list(said.tokens_C)
        case "none":
            lengths = [1] * len(choices)
    return [log / max(1, length) for log, length in zip(said.log_C, lengths, strict=True)]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model's choice on one item."""

    score: float
    """1 for the right choice, 0 for another; a tie shares it."""
    choice: int
    """The likeliest choice, of equals the first."""
    confidence: float
    """Probability of that choice among all, in (0, 1]."""


def choose(item: Item, said: Likelihoods, how: Normalisation) -> Chosen:
    """Return which choice wins and its score.

    The confidence is the softmax over choices of the log-likelihoods themselves, divided by nothing, for these are
    what a distribution over choices means; ranking may be by a normalised score.

    Args:
        item: The question with its choices.
        said: What the model says of them.
        how: The normalisation that the task states.
    """
    ranked = normalised(said, item.choices, how)
    best = max(ranked)
    winners = [c for c, score in enumerate(ranked) if score == best]
    gold = item.choices.index(item.gold)
    top = max(said.log_C)
    weights = [math.exp(log - top) for log in said.log_C]
    return Chosen(
        score=float(gold in winners) / len(winners),
        choice=winners[0],
        confidence=weights[winners[0]] / sum(weights),
    )
