"""One account of the log: who it is, what it is, and how its requests are drawn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from limbeck.guard.observation import Observation, Response

Class = Literal["chat", "office", "reseller", "pipeline", "benchmark", "agent", "redteam", "copier"]
HONEST: tuple[Class, ...] = (
    "chat", "office", "reseller", "pipeline", "benchmark", "agent", "redteam",
)  # fmt: skip
CHARACTERS_PER_TOKEN = 4
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Links:
    """What ties accounts to each other, as a platform sees it."""

    org: str
    ip: str
    asn: str
    user_agent: str
    payment: str
    signup: str
    """The day on which the account was made."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account, and all that its requests are drawn from."""

    name: str
    kind: Class
    family: str
    """`class/source`, or `copier/tactic-source`; a family is never split between folds."""
    links: Links
    requests: int
    model: str
    start: float
    """Seconds since 1970-01-01 UTC."""
    days: float
    seed: int
    prose: str
    """Items of `Material.items` that composed replies take their sentences from."""
    declared_use: str | None = None
    campaign: str = ""
    shard: int = 0
    """Which of the campaign's accounts this is."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an account sends and what it gets, before anybody knows who and when."""

    messages: Sequence[Mapping[str, Any]]
    reply: str
    options: Mapping[str, Any]


def observe(
    account: Account, ts: float, exchange: Exchange, model: str | None = None
) -> Observation:
    """Return an exchange as the guard sees it."""
    request: dict[str, Any] = {
        "model": model or account.model,
        "messages": list(exchange.messages),
        **exchange.options,
    }
    read = sum(len(str(message["content"])) for message in exchange.messages)
    links = account.links
    return Observation(
        ts=ts,
        account=account.name,
        org=links.org,
        model=request["model"],
        endpoint="/v1/chat/completions",
        request=request,
        ip=links.ip,
        asn=links.asn,
        user_agent=links.user_agent,
        payment=links.payment,
        response=Response(
            text=exchange.reply,
            prompt_tokens=read // CHARACTERS_PER_TOKEN + 1,
            completion_tokens=len(exchange.reply) // CHARACTERS_PER_TOKEN + 1,
        ),
        declared_use=account.declared_use,
        attributes={"signup": links.signup},
    )


def pick(rng: np.random.Generator, of: Sequence[_T]) -> _T:
    """Draw one of a sequence."""
    return of[int(rng.integers(len(of)))]


def rounds(rng: np.random.Generator, of: Sequence[_T]) -> Iterator[_T]:
    """Yield a sequence in random order, again and again, each time in another order."""
    while True:
        for place in rng.permutation(len(of)):
            yield of[int(place)]


def user(text: str) -> dict[str, str]:
    """Return a user's turn."""
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, str]:
    """Return a system prompt."""
    return {"role": "system", "content": text}


def assistant(text: str) -> dict[str, str]:
    """Return a reply as it stands in a later request."""
    return {"role": "assistant", "content": text}
