"""Who is in a log: how many accounts of each class, of which family, linked how, how busy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np

from traffic.account import HONEST, Account, Class, Links, pick
from traffic.clock import DAY_S
from traffic.copier import Campaign, shares
from traffic.folds import Fold

START = 1_788_739_200.0
"""Monday, 2026-09-07 00:00 UTC."""
DAYS = 7.0
_MODELS = ("alembic-large", "alembic-small")
_SDKS = (
    "openai-python/1.99",
    "openai-python/2.8",
    "openai-node/5.1",
    "langchain/0.4",
    "curl/8.9",
    "litellm/1.80",
)
_BROWSERS = tuple(
    f"Mozilla/5.0 ({os}) {b}"
    for os in ("Windows", "Macintosh", "X11", "iPhone")
    for b in ("Chrome/141", "Firefox/143", "Safari/19")
)
_ISPS, _CLOUDS = 120, 12
_BUSY: Mapping[Class, tuple[float, int]] = {
    "chat": (14, 200), "office": (9, 120), "reseller": (60, 500), "pipeline": (36, 1600), "benchmark": (40, 600),
    "agent": (26, 300), "redteam": (20, 200),
}  # fmt: skip
"""Class to the median and the largest number of requests of an account in the log."""
_DECLARED = 0.4
_LAST_SIGNUP = date(2026, 9, 6)
"""Accounts are made on the 365 days up to here."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides a log."""

    fold: Fold
    seed: int
    honest: Mapping[Class, int]
    """Accounts of each honest class."""
    campaigns: tuple[Campaign, ...] = field(default=())


def accounts(plan: Plan) -> Iterator[tuple[Account, Campaign | None]]:
    """Yield every account of a log; what one is does not depend on the others of other classes."""
    for order, kind in enumerate(HONEST):
        yield from ((one, None) for one in _honest(plan, kind, order))
    for n, campaign in enumerate(plan.campaigns):
        yield from ((one, campaign) for one in _campaign(plan, campaign, n))


def _honest(plan: Plan, kind: Class, order: int) -> Iterator[Account]:
    rng = np.random.default_rng([plan.seed, ord(plan.fold.name), order])
    families = plan.fold.families[kind]
    office, left = _links(rng, kind, 0, plan), 0
    for n in range(plan.honest.get(kind, 0)):
        family = f"{kind}/{families[n % len(families)]}"
        if kind == "office":
            if left == 0:
                office, left = _links(rng, kind, n, plan), int(rng.integers(15, 50))
            left -= 1
            links = replace(office, user_agent=pick(rng, _BROWSERS))
        else:
            links = _links(rng, kind, n, plan)
        declared = "evaluation" if kind == "benchmark" and rng.random() < _DECLARED else None
        yield Account(
            name=f"{plan.fold.name}-{kind}-{n:05d}", kind=kind, family=family, links=links, requests=_busy(rng, kind),
            model=pick(rng, _MODELS), start=START, days=DAYS, seed=int(rng.integers(2**62)), prose=plan.fold.prose, declared_use=declared,
        )  # fmt: skip


def _busy(rng: np.random.Generator, kind: Class) -> int:
    median, most = _BUSY[kind]
    return int(np.clip(median * np.exp(rng.normal(0, 0.9)), 4, most))


def _links(rng: np.random.Generator, kind: Class, n: int, plan: Plan) -> Links:
    where = f"{plan.fold.name}-{kind}-{n}"
    person = kind in ("chat", "office") or (kind == "redteam" and rng.random() < 0.5)
    asn = f"AS{64500 + int(rng.integers(_ISPS)) if person else 65200 + int(rng.integers(_CLOUDS))}"
    return Links(
        org=f"org-{where}", ip=_address(rng), asn=asn,
        user_agent=pick(rng, _BROWSERS if person else _SDKS), payment=f"card-{where}",
        signup=_signup(rng),
    )  # fmt: skip


def _signup(rng: np.random.Generator) -> str:
    return date.fromordinal(_LAST_SIGNUP.toordinal() - int(rng.integers(365))).isoformat()


def _address(rng: np.random.Generator) -> str:
    return f"10.{int(rng.integers(256))}.{int(rng.integers(256))}.{int(rng.integers(256))}"


def _campaign(plan: Plan, campaign: Campaign, order: int) -> Iterator[Account]:
    """Batches of ten share a card, all of them two clouds, two SDKs and two days of sign-up; loose ones look like people with an SDK, apart."""
    rng = np.random.default_rng([plan.seed, campaign.seed, order, 99])
    clouds = [f"AS{65200 + int(rng.integers(_CLOUDS))}" for _ in range(2)]
    agents = [pick(rng, _SDKS) for _ in range(2)]
    days = [_signup(rng) for _ in range(2)]
    for n, requests in enumerate(shares(campaign)):
        batch = campaign.linked == "batch"
        links = Links(
            org=f"org-{campaign.name}-{n}",
            ip=_address(rng),
            asn=pick(rng, clouds) if batch else f"AS{64500 + int(rng.integers(_ISPS))}",
            user_agent=pick(rng, agents),
            payment=f"card-{campaign.name}-{n // 10 if batch else n}",
            signup=pick(rng, days) if batch else _signup(rng),
        )
        yield Account(
            name=f"{campaign.name}-{n:05d}", kind="copier", family=campaign.family, links=links, requests=requests,
            model=_MODELS[0], start=START + campaign.day * DAY_S, days=DAYS, seed=int(rng.integers(2**62)), prose=plan.fold.prose, campaign=campaign.name, shard=n,
        )  # fmt: skip
