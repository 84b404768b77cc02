"""Evidence from sealed coins: an e-process that bets on which of two answers a suspect learned.

The owner of a teacher drew two answers y0 and y1, and a fair bit b, which nobody could foresee, decided that y_b was
served. Of a suspect S and a reference R, which never saw either answer,

    d = [l_S(y1) - l_S(y0)] - [l_R(y1) - l_R(y0)]        (nats)

says how much more S leans to y1 than R does. Under the null hypothesis, that S is independent of the bits given the
answers, every bit is fair whatever all the d are, so for any bet a > 0 the product over coins of
2 sigmoid(a (2b - 1) d) has mean 1 after every coin, and so has its average over bets. By Ville's inequality that
average reaches 1/alpha with probability at most alpha, however long one watches and whenever one stops. Nothing is
assumed of the models, of the answers, or of the order of the coins, as long as that order knows nothing of the bits.

One coin multiplies the evidence by at most 2, so no single answer can carry a verdict; two coins with the same hash
have the same bit and must count once (see `limbeck.trace`). Only `math` is needed: a verifier can run this anywhere.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

BETS = tuple(2.0**k for k in range(-7, 6, 2))
"""Bets in 1/nats, a geometric grid; averaging over K of them costs at most log K nats against the best one."""


def leaning(suspect: tuple[float, float], reference: tuple[float, float]) -> float:
    """Return d in nats; each model's pair holds its log-likelihoods of y0 and y1 given the prompt."""
    return (suspect[1] - suspect[0]) - (reference[1] - reference[0])


def log_growth(lean: float, bet: float) -> float:
    """Return log(2 sigmoid(bet * lean)), in (-inf, log 2], without overflow.

    Args:
        lean: (2b - 1) d: positive where the suspect leans to the answer that was served, in nats.
        bet: The stake a, above 0, in 1/nats.
    """
    x = bet * lean
    return math.log(2) + min(x, 0.0) - math.log1p(math.exp(-abs(x)))


def log_e_path(coins: Iterable[tuple[int, float]], bets: Sequence[float] = BETS) -> Iterator[float]:
    """Yield the log e-value after each coin, which may come one at a time.

    Args:
        coins: Pairs of the bit b (0 or 1) and d in nats, in an order that was fixed before the bits were known.
        bets: The grid of a, fixed beforehand too.

    Raises:
        ValueError: A bit that is not one, a d that is not finite, or bets that are none or not above 0.
    """
    _check_bets(bets)
    capital = [0.0] * len(bets)
    for place, (bit, d) in enumerate(coins):
        if bit not in {0, 1} or not math.isfinite(d):
            raise ValueError(f"coin {place} needs a bit 0 or 1 and a finite d, got {bit} and {d}")
        lean = d if bit else -d
        capital = [log + log_growth(lean, bet) for log, bet in zip(capital, bets, strict=True)]
        yield log_mean_exp(capital)


def log_e_value(coins: Iterable[tuple[int, float]], bets: Sequence[float] = BETS) -> float:
    """Return the log e-value after all coins; 0.0 after none."""
    last = 0.0
    for last in log_e_path(coins, bets):  # noqa: B007
        pass
    return last


def first_crossing(path: Iterable[float], alpha: float) -> int | None:
    """Return the number of coins after which the log e-value first reached log(1/alpha); None if it never did.

    Raises:
        ValueError: An alpha outside (0, 1).
    """
    limit = threshold(alpha)
    return next((n for n, log_e in enumerate(path, start=1) if log_e >= limit), None)


def threshold(alpha: float) -> float:
    """Return log(1/alpha), what a log e-value must reach for a verdict at level alpha.

    Raises:
        ValueError: An alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    return -math.log(alpha)


def fewest_coins(alpha: float) -> int:
    """Return the least number of coins that any verdict at level alpha needs: each at most doubles the evidence."""
    return math.ceil(threshold(alpha) / math.log(2) - 1e-12)


def log_mean_exp(values: Sequence[float]) -> float:
    """Return log(mean(exp(values))) without overflow."""
    top = max(values)
    return top + math.log(math.fsum(math.exp(v - top) for v in values) / len(values))


def _check_bets(bets: Sequence[float]) -> None:
    if not bets or not all(math.isfinite(bet) and bet > 0 for bet in bets):
        raise ValueError(f"bets must be numbers above 0, at least one, got {list(bets)}")
