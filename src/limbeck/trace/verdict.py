"""The verdict on a suspect, in the words of forensic reporting: two propositions, a strength, and what is not shown."""

import math
from dataclasses import dataclass
from typing import Literal

from limbeck.stats.coins import fewest_coins, threshold

Finding = Literal["distilled", "not shown", "undecided"]
FORECAST = 4.0
"""A growing e-value that more coins of the same kind, up to this many times those at hand, would carry over the
threshold leaves the question open."""

# Verbal equivalents of likelihood ratios: ENFSI guideline for evaluative reporting in forensic science (2015), table 1.
_STRENGTH = (
    (1e6, "extremely strong support"),
    (1e4, "very strong support"),
    (1e3, "strong support"),
    (1e2, "moderately strong support"),
    (10.0, "moderate support"),
    (2.0, "weak support"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit found, at a level that was fixed before it began."""

    finding: Finding
    alpha: float
    log_e: float
    """Natural logarithm of the e-value that decided."""
    because: str
    """One sentence."""
    more_coins: int | None = None
    """How many further coins like these would reach the threshold; None where that cannot be said or is not needed."""

    @property
    def strength(self) -> str:
        """The verbal equivalent of the e-value."""
        return strength(self.log_e)


def strength(log_e: float) -> str:
    """Return the verbal equivalent of an e-value, which is read as a likelihood ratio against the first proposition."""
    limit = next((words for bound, words in _STRENGTH if log_e >= math.log(bound)), None)
    return limit or "no support in either direction worth reporting"


def decide(
    log_e: float, *, alpha: float, coins: int, all_used: bool, more_coins: int | None
) -> Verdict:
    """Decide from the e-value at which the audit stopped.

    Args:
        log_e: The largest log e-value up to the stop; by Ville's inequality its maximum may be taken.
        alpha: Chance of a false accusation that was agreed beforehand.
        coins: Coins used.
        all_used: Whether every coin at hand was used.
        more_coins: Forecast of the coins that are still missing; None where the evidence does not grow.

    Raises:
        ValueError: An alpha outside (0, 1).
    """
    least = fewest_coins(alpha)
    if log_e >= threshold(alpha):
        return Verdict("distilled", alpha, log_e, _shown(log_e, alpha))
    if coins < least:
        because = (
            f"{coins} coins are fewer than the {least} that any verdict at alpha = {alpha:g} needs"
        )
        return Verdict("undecided", alpha, log_e, because, more_coins)
    if not all_used:
        return Verdict("undecided", alpha, log_e, "the audit was stopped early", more_coins)
    if more_coins is not None and more_coins <= FORECAST * coins:
        because = f"the evidence grows; about {more_coins} further coins like these would decide"
        return Verdict("undecided", alpha, log_e, because, more_coins)
    because = (
        f"over {coins} coins the suspect does not lean to the served answers more than chance allows"
        if more_coins is None
        else f"the lean over {coins} coins is so small that about {more_coins} more would be needed"
    )
    return Verdict("not shown", alpha, log_e, because, more_coins)


def decide_by_p(p_value: float, *, alpha: float, coins: int) -> Verdict:
    """Decide from a p-value that is corrected for everything that was tried.

    The e-value beside it is 1 / (2 sqrt(p)), a calibrator of Vovk and Wang (Annals of Statistics 49, 2021): what a
    p-value is worth as evidence, which is less than 1/p.

    Raises:
        ValueError: A p-value outside (0, 1], or an alpha outside (0, 1).
    """
    if not 0 < p_value <= 1:
        raise ValueError(f"a p-value must lie in (0, 1], got {p_value}")
    threshold(alpha)
    log_e = -math.log(2) - math.log(p_value) / 2
    if p_value <= alpha:
        because = (
            f"over {coins} coins its choices side with the answers that were served as only a share of {p_value:.2g} "
            "of keys would have it"
        )
        return Verdict("distilled", alpha, log_e, because)
    because = (
        f"over {coins} coins its choices side with the answers that were served no more than with what other keys "
        f"would have served (p = {p_value:.2g}, corrected)"
    )
    return Verdict("not shown", alpha, log_e, because)


def propositions(suspect: str, teacher: str) -> tuple[str, str]:
    """Return the two propositions that the evidence is weighed under."""
    return (
        f"{suspect} is independent of which of the two answers {teacher} served: it did not learn from them",
        f"{suspect} was trained on answers that {teacher} served to these accounts, or on text derived from them",
    )


LIMITS: tuple[str, ...] = (
    "It does not show who trained the model, when, by whom the answers were passed on, or whether any terms forbade it.",
    "It does not show that the suspect's ability comes from these answers, nor how large a share of its training they were.",
    "An e-value is not the probability that the suspect is guilty; prior odds belong to whoever judges the case.",
    "It rests on the bits being secret until served: a leak of the key, or a suspect whose makers saw both answers, is outside it.",
)
"""What no verdict from coins shows."""
NOT_SHOWN = (
    "Not shown is not innocence. A model that learned from few of these answers, from the teacher's probabilities alone, "
    "or through heavy paraphrase may leave no trace in the coins. The test says only that these coins do not show it."
)
"""Stands beside every verdict of `not shown`."""


def _shown(log_e: float, alpha: float) -> str:
    return (
        f"evidence this strong or stronger would arise in at most 1 of {odds(log_e)} audits of a model that never "
        f"learned from these answers; the level agreed beforehand was 1 of {odds(threshold(alpha))}"
    )


def odds(log_e: float) -> str:
    """Write exp(log_e) for reading, whatever its size."""
    if log_e < math.log(10):
        return f"{math.exp(log_e):.2g}"
    return f"{math.exp(log_e):,.0f}" if log_e < math.log(1e6) else f"10^{log_e / math.log(10):.0f}"
