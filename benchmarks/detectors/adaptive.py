"""A white-box copier: knows the watch and its calibration, rehearses on a copy of it, and keeps what costs least.

He hides as each honest rival in turn: he wraps his prompts into one template like a pipeline, frames them like an exam,
asks them within conversations, hangs tools on them; he orders them so that neighbours are alike; he dilutes them among
honest cover, spreads them over accounts, cuts the links between these, keeps human hours. His price is the larger of two
ratios to what an undefended copier pays: requests paid for each copied answer, and identities (campaigns under fresh
accounts, cards and networks) until he has the answers that he needs. A wrapped prompt is assumed to teach as much as a
bare one, which favours the copier.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from traffic.account import Exchange, assistant, pick, system, user
from traffic.tactics import Pool

Shell = Literal["plain", "pipeline", "exam", "dialogue", "agent"]
MIXES = (1.0, 0.5, 0.25, 0.125, 0.0625)
SIZES = (1, 10, 50)


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to hide."""

    shell: Shell = "plain"
    mix: float = 1.0
    accounts: int = 1
    alike: bool = False
    """Whether the pool is walked through neighbours instead of at random."""
    linked: bool = True
    quiet: bool = False
    """Whether sampling options are left as a chat leaves them."""
    exams: bool = False
    """Whether the cover is items of a public suite, so as to be taken for an evaluation, instead of a chat."""

    @property
    def label(self) -> str:
        """What tables call it."""
        marks = [
            self.shell, f"{self.mix:.0%} copying", f"{self.accounts} account{'s' * (self.accounts > 1)}",
            "alike" if self.alike else "scattered", "linked" if self.linked else "unlinked",
        ]  # fmt: skip
        return ", ".join(
            [*marks, *(["quiet"] * self.quiet), *(["suite items as cover"] * self.exams)]
        )


@dataclass(frozen=True, slots=True)
class Price:
    """What a strategy costs and gives."""

    strategy: Strategy
    evidence: float
    """Highest log e-value during the rehearsal."""
    answers: int
    """Copied answers until the accusation, or all that were needed."""
    requests: int
    """Requests until then."""
    needed: int
    """Answers that keep the share of the gain that the copier insists on."""
    caught: bool
    """Whether it was accused; otherwise the rehearsal ended first, by then or with enough answers."""

    @property
    def identities(self) -> float:
        """Campaigns until enough answers are collected, in fractions; infinite where none was released, 1 if not caught."""
        if not self.caught:
            return 1.0
        return self.needed / self.answers if self.answers else float("inf")

    @property
    def per_answer(self) -> float:
        """Requests for each copied answer."""
        return self.requests / self.answers if self.answers else float("inf")

    @property
    def factor(self) -> float:
        """The larger ratio to an undefended copier, who pays one identity and one request for each answer."""
        return max(1.0, self.identities, self.per_answer)


def strategies(rng: np.random.Generator, count: int) -> Iterator[Strategy]:
    """Yield every shell once bare, then random strategies."""
    yield from (Strategy(shell, quiet=True, alike=True, linked=False) for shell in get_args(Shell))
    yield Strategy("exam", mix=0.5, quiet=True, linked=False, exams=True)
    for _ in range(count):
        yield Strategy(
            pick(rng, get_args(Shell)), pick(rng, MIXES), pick(rng, SIZES), bool(rng.random() < 0.5),
            bool(rng.random() < 0.3), bool(rng.random() < 0.7), bool(rng.random() < 0.2),
        )  # fmt: skip


def mutate(rng: np.random.Generator, of: Strategy) -> Strategy:
    """Return a strategy that differs in one respect."""
    changes: Sequence[Callable[[], Strategy]] = (
        lambda: replace(of, shell=pick(rng, get_args(Shell))),
        lambda: replace(of, mix=pick(rng, MIXES)),
        lambda: replace(of, accounts=pick(rng, SIZES)),
        lambda: replace(of, alike=not of.alike),
        lambda: replace(of, linked=not of.linked),
        lambda: replace(of, quiet=not of.quiet),
        lambda: replace(of, exams=not of.exams),
    )
    return pick(rng, changes)()


def search(
    rehearse: Callable[[Strategy], Price],
    rng: np.random.Generator,
    *,
    first: int,
    rounds: int,
    parents: int = 3,
) -> list[Price]:
    """Return all strategies that were rehearsed, the cheapest first; among equals the least evident."""
    tried: dict[Strategy, Price] = {}
    for strategy in strategies(rng, first):
        if strategy not in tried:
            tried[strategy] = rehearse(strategy)
    for _ in range(rounds):
        best = sorted(tried.values(), key=_cheap)[:parents]
        for price in best:
            child = mutate(rng, price.strategy)
            if child not in tried:
                tried[child] = rehearse(child)
    return sorted(tried.values(), key=_cheap)


def pareto(prices: Sequence[Price]) -> list[Price]:
    """Return the prices that no other beats in both ratios, by requests for an answer."""
    found: list[Price] = []
    for price in sorted(prices, key=lambda p: (p.per_answer, p.identities)):
        if price.answers and (not found or price.identities < found[-1].identities):
            found.append(price)
    return found


def _cheap(price: Price) -> tuple[float, float]:
    return price.factor, price.evidence


def shelled(shell: Shell, exchange: Exchange, pool: Pool, k: int) -> Exchange:
    """Return an exchange dressed as an honest rival's."""
    match shell:
        case "plain":
            return exchange
        case "pipeline":
            told = system(
                "You are the knowledge component of Northwind Travel. Answer the item in one paragraph. No markdown."
            )
            return replace(
                exchange, messages=[told, user(f"### Data\n{_asked(exchange)}\n### Result")]
            )
        case "exam":
            shots = "".join(f"Question: {pool.item(n)}\nAnswer: yes\n\n" for n in range(3))
            options = {"temperature": 0, "max_tokens": 256}
            return Exchange(
                [user(f"{shots}Question: {_asked(exchange)}\nAnswer:")], exchange.reply, options
            )
        case "dialogue":
            before = pool.item(k - k % 6)
            said = f"Here is what I can say about {before[:60]}."
            return replace(
                exchange, messages=[user(before), assistant(said), user(f"ok. {_asked(exchange)}")]
            )
        case "agent":
            tools = [
                {
                    "type": "function",
                    "function": {"name": "take_note", "parameters": {"type": "object"}},
                }
            ]
            told = system("You are an autonomous assistant. Use the tools, then answer.")
            return Exchange(
                [told, *exchange.messages], exchange.reply, {**exchange.options, "tools": tools}
            )


def _asked(exchange: Exchange) -> str:
    return str(exchange.messages[-1]["content"])


def neighbours(vector_ND: np.ndarray, start: int) -> list[int]:
    """Return an order in which each row is followed by the nearest one that was not visited yet."""
    left = np.ones(len(vector_ND), bool)
    order = [start]
    left[start] = False
    while left.any():
        near_N = vector_ND @ vector_ND[order[-1]]
        near_N[~left] = -2
        order.append(int(near_N.argmax()))
        left[order[-1]] = False
    return order
