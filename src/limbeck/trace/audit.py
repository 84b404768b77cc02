"""Audit a suspect by its log-likelihoods: which of two answers does it lean to, coin by coin, until the answer is clear.

A suspect leans to y1 by l_S(y1) - l_S(y0) nats. Most of that lean is no trace of training: one answer is simply likelier
text. References take it away. With references R_1 .. R_K, none of which saw either answer,

    d_i = [l_S(y1) - l_S(y0)]_i - sum_k w_ik [l_Rk(y1) - l_Rk(y0)]_i        (nats)

and the weights w_i are a ridge regression, through the origin and around 1/K, of the suspect's leans on the references'
over coins 1 .. i. They are made of log-likelihoods alone and read no bit; given the answers and the models, each bit is
a fair coin of its own, so (2b - 1) d_i is as likely positive as negative whatever the weights, and the e-process of
`limbeck.stats.coins` keeps its mean of 1 at every stopping time. `weights="one"` fixes w = 1/K instead.

The text is scored as each model's own tokenizer reads it, and both answers of a pair by the same model, so tokenizers may
differ between suspect and reference. Sums are not divided by length: that would weigh coins by how the text was cut.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from limbeck.errors import TraceError
from limbeck.stats.coins import (
    BETS,
    fewest_coins,
    first_crossing,
    log_e_path,
    log_growth,
    threshold,
)
from limbeck.stats.estimate import Estimate
from limbeck.stats.proportion import clopper_pearson
from limbeck.trace.coins import Coin, Pair
from limbeck.trace.verdict import Verdict, decide

Weights = Literal["fitted", "one"]
Heard = Callable[[int], None]
"""Hears how many more coins were scored."""
RIDGE = 16.0
"""Coins of the size seen so far that the prior weight of 1/K counts for."""
BATCH = 32


class Weigher(Protocol):
    """A model that says how likely a text is."""

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> str:
        """A hash of its weights, or the address and name of a served model."""
        ...

    def leans(self, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
        """Return the log-likelihoods, in nats, of y0 and y1 of each pair given its prompt.

        A constant that both share is allowed, such as the likelihood of the prompt.

        Raises:
            TraceError: It gives no log-probabilities.
        """
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """One coin as it was scored: what a third party needs to compute the verdict again."""

    hash: str
    account: str
    bit: int
    suspect: tuple[float, float]
    """Log-likelihoods of y0 and y1, in nats."""
    references: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit of one suspect on one set of coins."""

    suspect: str
    references: tuple[str, ...]
    weights: Weights
    items: tuple[Item, ...]
    """In the order of the coins, up to the stop."""
    d: tuple[float, ...]
    """Of each item, in nats."""
    path: tuple[float, ...]
    """Log e-value after each item."""
    at_hand: int
    """Coins that there were."""
    crossing: int | None
    """Number of coins after which the e-value first reached 1/alpha."""
    agreement: Estimate
    """Share of the items whose d points to the served answer, ties left out; 1/2 without training."""
    verdict: Verdict

    @property
    def log_e(self) -> float:
        """The log e-value where the audit ended; an e-value, for the end is a stopping time."""
        return self.path[-1]


def audit(
    coins: Sequence[Coin],
    suspect: Weigher,
    references: Sequence[Weigher],
    *,
    alpha: float,
    weights: Weights = "fitted",
    bets: Sequence[float] = BETS,
    at_most: int | None = None,
    stop_early: bool = True,
    heard: Heard = lambda _: None,
) -> Audit:
    """Score coins in their order until the e-value reaches 1/alpha, or there are no more.

    Args:
        coins: In an order that was fixed before the bits were known, such as that of the coin file.
        suspect: The model in question.
        references: Models that saw neither answer, such as the teacher itself; none leaves the suspect's own lean.
        alpha: Chance of a false accusation, agreed beforehand, in (0, 1).
        weights: How references are weighed; fixed beforehand too.
        bets: The grid of the e-process; fixed beforehand too.
        at_most: Score no more coins than this, at least 1.
        stop_early: Whether to stop at the threshold; False scores all, which is valid as well.
        heard: Hears of progress.

    Raises:
        TraceError: No coin, two coins with one hash, or a model without log-probabilities.
        ValueError: An alpha outside (0, 1).
    """
    check_coins(coins)
    limit = threshold(alpha)
    chosen = coins[:at_most]
    items: list[Item] = []
    for start in range(0, len(chosen), BATCH):
        part = chosen[start : start + BATCH]
        items += _score(part, suspect, references)
        heard(len(part))
        path = list(log_e_path(_bets_on(items, weights), bets))
        if stop_early and max(path) >= limit:
            items = items[: first_crossing(path, alpha)]
            break
    names = (suspect.name, tuple(r.name for r in references))
    return judge(items, *names, alpha=alpha, weights=weights, bets=bets, at_hand=len(coins))


def judge(
    items: Sequence[Item],
    suspect: str,
    references: Sequence[str],
    *,
    alpha: float,
    weights: Weights = "fitted",
    bets: Sequence[float] = BETS,
    at_hand: int | None = None,
) -> Audit:
    """Return the audit that scored items amount to; pure, and what `audit` ends with."""
    d_I = leans_of(items, weights)
    bits = [item.bit for item in items]
    path = tuple(log_e_path(zip(bits, d_I, strict=True), bets))
    signs = [(d > 0) == bool(bit) for d, bit in zip(d_I, bits, strict=True) if d != 0]
    at_hand = len(items) if at_hand is None else at_hand
    verdict = decide(
        max(path),
        alpha=alpha,
        coins=len(items),
        all_used=len(items) == at_hand,
        more_coins=coins_missing(bits, d_I, alpha, bets),
    )
    return Audit(
        suspect=suspect,
        references=tuple(references),
        weights=weights,
        items=tuple(items),
        d=tuple(d_I),
        path=path,
        at_hand=at_hand,
        crossing=first_crossing(path, alpha),
        agreement=clopper_pearson(sum(signs), max(1, len(signs))),
        verdict=verdict,
    )


def leans_of(items: Sequence[Item], weights: Weights) -> list[float]:
    """Return d of each item, in nats; it reads no bit, and each item's reads no later item."""
    lean_I = np.array([i.suspect[1] - i.suspect[0] for i in items])
    lean_IK = np.array([[r[1] - r[0] for r in i.references] for i in items])
    if not lean_IK.size:
        return lean_I.tolist()
    if weights == "one":
        return (lean_I - lean_IK.mean(axis=1)).tolist()
    return (lean_I - (lean_IK * _fitted(lean_I, lean_IK)).sum(axis=1)).tolist()


def _fitted(
    lean_I: npt.NDArray[np.float64], lean_IK: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return for each item the ridge weights over the items up to it, [I, K]."""
    count, k = lean_IK.shape
    prior_K = np.full(k, 1 / k)
    gram_KK, cross_K = np.zeros((k, k)), np.zeros(k)
    weights_IK = np.empty((count, k))
    for i, (lean, row_K) in enumerate(zip(lean_I, lean_IK, strict=True)):
        gram_KK += np.outer(row_K, row_K)
        cross_K += lean * row_K
        ridge = RIDGE * max(float(np.trace(gram_KK)) / (k * (i + 1)), 1e-12)
        weights_IK[i] = np.linalg.solve(gram_KK + ridge * np.eye(k), cross_K + ridge * prior_K)
    return weights_IK


def coins_missing(
    bits: Sequence[int], d_I: Sequence[float], alpha: float, bets: Sequence[float] = BETS
) -> int | None:
    """Forecast how many further coins like these would reach the threshold.

    It extrapolates the mean growth of the best bet on the grid so far. Chosen after the fact, that is optimistic, so
    one standard error is taken off.

    Returns:
        At least 1; 0 where the threshold is reached; None where the evidence does not grow.
    """
    limit = threshold(alpha)
    leans = [d if bit else -d for bit, d in zip(bits, d_I, strict=True)]
    if len(leans) < 2:
        return max(0, fewest_coins(alpha) - len(leans))
    path = list(log_e_path(zip(bits, d_I, strict=True), bets))
    if max(path) >= limit:
        return 0
    growth_LI = np.array([[log_growth(lean, bet) for lean in leans] for bet in bets])
    best_I = growth_LI[growth_LI.mean(axis=1).argmax()]
    rate = float(best_I.mean() - best_I.std(ddof=1) / math.sqrt(len(leans)))
    return None if rate <= 0 else max(1, math.ceil((limit - path[-1]) / rate))


def check_coins(coins: Sequence[Coin]) -> None:
    """Refuse coins that say nothing, or the same thing twice.

    Raises:
        TraceError: There is none, or two have one hash and so one bit.
    """
    if not coins:
        raise TraceError("an audit needs coins, and none are left")
    seen: set[bytes] = set()
    for coin in coins:
        if coin.pair.hash in seen:
            raise TraceError(
                f"the coin {coin.pair.hash.hex()[:16]}… stands twice in the file; its one bit must count once"
            )
        seen.add(coin.pair.hash)


def _score(
    coins: Sequence[Coin], suspect: Weigher, references: Sequence[Weigher]
) -> Iterator[Item]:
    pairs = [coin.pair for coin in coins]
    mine = suspect.leans(pairs)
    theirs = [reference.leans(pairs) for reference in references]
    for place, coin in enumerate(coins):
        refs = tuple(logs[place] for logs in theirs)
        if not all(map(math.isfinite, (*mine[place], *(x for r in refs for x in r)))):
            raise TraceError(
                f"the coin {coin.pair.hash.hex()[:16]}… has a log-likelihood that is not finite"
            )
        yield Item(coin.pair.hash.hex(), coin.pair.account, coin.bit, mine[place], refs)


def _bets_on(items: Sequence[Item], weights: Weights) -> Iterator[tuple[int, float]]:
    return zip((i.bit for i in items), leans_of(items, weights), strict=True)
