"""Campaigns: one pool of prompts, split over accounts, among honest cover traffic."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from itertools import count as counted
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from limbeck.guard.observation import Observation
from traffic import clock, disguise
from traffic.account import Account, Exchange, observe
from traffic.bench import benchmark
from traffic.chat import chat
from traffic.material import Material
from traffic.tactics import TACTICS, Pool, pool_of

Disguise = Literal["none", "paraphrase", "translate"]
Tempo = Literal["steady", "slow", "pivot"]
Linked = Literal["batch", "loose"]
SLOW_FACTOR = 4.0
"""How many times longer a low-and-slow campaign takes for the same requests."""
_BEFORE_RELEASE = 0.15
_PIVOT_DAY = 4.0


@dataclass(frozen=True, slots=True)
class Campaign:
    """A copier's plan."""

    name: str
    tactic: str
    source: str
    accounts: int
    mix: float
    """Share of the requests that copy, above 0 and at most 1; the others are a chat user's."""
    queries: int
    """Requests of all accounts together, cover included."""
    cover: str
    """What covers it: a source of chats, or `benchmark/SUITE`."""
    prose: str
    disguise: Disguise = "none"
    tempo: Tempo = "steady"
    linked: Linked = "batch"
    day: float = 0.0
    """When it begins, in days after the log does."""
    seed: int = 0

    @property
    def family(self) -> str:
        """The family of its accounts."""
        return f"copier/{self.tactic}-{self.source}"


def shares(campaign: Campaign) -> list[int]:
    """Return the requests of each account; they differ by one at the most."""
    whole, rest = divmod(campaign.queries, campaign.accounts)
    return [whole + (n < rest) for n in range(campaign.accounts)]


def copy(
    account: Account,
    campaign: Campaign,
    material: Material,
    *,
    pool: Pool | None = None,
    dress: Callable[[Exchange, Pool, int], Exchange] | None = None,
) -> Iterator[Observation]:
    """Yield the requests of one account of a campaign.

    Args:
        account: One of its accounts.
        campaign: The plan.
        material: Where prompts come from.
        pool: Asked about instead of the campaign's own.
        dress: Changes each copying exchange, given its pool and place.
    """
    rng = np.random.default_rng(account.seed)
    copied = marks(account, campaign)
    cover = _cover(account, campaign, material, int((~copied).sum()))
    pool = pool or pool_of(campaign.source, material, campaign.prose, campaign.seed)
    when = _moments(rng, account, campaign)
    place = account.shard
    for ts, copies in zip(when, copied, strict=True):
        if copies:
            exchange = _disguised(rng, campaign, TACTICS[campaign.tactic](pool, place))
            exchange = dress(exchange, pool, place) if dress else exchange
            place += campaign.accounts
            model = (
                f"{account.model}-2"
                if campaign.tempo == "pivot" and ts >= release(account)
                else None
            )
            yield observe(account, float(ts), exchange, model)
        else:
            yield replace(next(cover), ts=float(ts))


def marks(account: Account, campaign: Campaign) -> npt.NDArray[np.bool_]:
    """Return which of an account's requests copy, in order; the others are cover."""
    return np.random.default_rng([account.seed, 1]).random(account.requests) < campaign.mix


def release(account: Account) -> float:
    """Return when the new model comes out to which a pivoting campaign moves."""
    return account.start + _PIVOT_DAY * clock.DAY_S


def _cover(
    account: Account, campaign: Campaign, material: Material, count: int
) -> Iterator[Observation]:
    seed = account.seed + 1
    if not count:
        return iter(())
    if campaign.cover.startswith("benchmark/"):
        runner = replace(account, kind="benchmark", family=campaign.cover, requests=count)
        runs = (benchmark(replace(runner, seed=seed + n), material) for n in counted())
        return chain.from_iterable(runs)
    family = f"chat/{campaign.cover}"
    return chat(replace(account, kind="chat", family=family, requests=count, seed=seed), material)


def _moments(rng: np.random.Generator, account: Account, campaign: Campaign) -> Any:
    days = account.days * (SLOW_FACTOR if campaign.tempo == "slow" else 1.0)
    if campaign.tempo != "pivot":
        return clock.steady(rng, account.start, days, account.requests)
    before = int(account.requests * _BEFORE_RELEASE)
    early = clock.steady(rng, account.start, _PIVOT_DAY, before) if before else np.empty(0)
    late = clock.steady(rng, release(account), 1.0, account.requests - before)
    return np.concatenate([early, late])


def _disguised(rng: np.random.Generator, campaign: Campaign, exchange: Exchange) -> Exchange:
    if campaign.disguise == "none":
        return exchange

    def turn(text: str) -> str:
        return (
            disguise.paraphrase(rng, text)
            if campaign.disguise == "paraphrase"
            else disguise.translate(text)
        )

    messages = [
        m | {"content": turn(m["content"])} if m["role"] == "user" else m
        for m in map(dict, exchange.messages)
    ]
    return Exchange(messages, exchange.reply, exchange.options)
