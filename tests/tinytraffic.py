"""Small composed traffic for tests: honest classes in two families each, and copiers, out of made-up words."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.guard.observation import Observation, Response
from limbeck.guard.score import Truth

START = 1_790_000_000.0
_SYLLABLES = ("ba", "ke", "lo", "mi", "nu", "pra", "sto", "ti", "vel", "wen", "zor", "qui")


def dice(seed: int | str) -> random.Random:
    """Return a seeded generator."""
    return random.Random(seed)  # noqa: S311 (tests need no secrets)


def words(rng: random.Random, count: int, topic: int | None = None) -> list[str]:
    """Return made-up words, of one topic's small vocabulary or of any."""
    drawn: list[str] = []
    for _ in range(count):
        seed = rng.randrange(40) if topic is not None else rng.randrange(1_000_000)
        inner = dice(f"{topic} {seed}")
        drawn.append("".join(inner.choice(_SYLLABLES) for _ in range(inner.randint(2, 4))))
    return drawn


def observation(account: str, ts: float, text: str, **changes: Any) -> Observation:
    """Return a request with one user turn."""
    request = {"messages": [{"role": "user", "content": text}], **changes.pop("request", {})}
    reply = changes.pop("reply", "It is so.")
    return Observation(
        ts=ts, account=account, org=changes.pop("org", f"org {account}"), model="m", endpoint="/v1/chat/completions",
        request=request, response=Response(text=reply, completion_tokens=len(reply) // 4 + 1), **changes,
    )  # fmt: skip


@dataclass(frozen=True)
class Traffic:
    """Observations in the order of time, and who is who."""

    observations: Sequence[Observation]
    truths: Mapping[str, Truth]


def compose(
    *, honest: int, campaigns: int = 4, requests: int = 12, seed: int = 0, kinds: Sequence[str] = ("chat", "pipeline", "benchmark", "agent")
) -> Traffic:  # fmt: skip
    """Return `honest` accounts of each class and campaigns of five accounts that share a card."""
    rng = dice(seed)
    found: list[Observation] = []
    truths: dict[str, Truth] = {}
    for kind in kinds:
        for n in range(honest):
            name, family = f"{kind}-{n}", f"{kind}/{n % 2}"
            truths[name] = Truth(kind, "", family)
            found += _MAKERS[kind](name, n % 2, rng, requests)
    for c in range(campaigns):
        for n in range(5):
            name = f"copier-{c}-{n}"
            truths[name] = Truth("copier", f"c{c}", f"sweep/{c % 2}")
            found += _copy(name, c, rng, requests)
    return Traffic(sorted(found, key=lambda one: (one.ts, one.account)), truths)


def _chat(name: str, family: int, rng: random.Random, requests: int) -> Iterator[Observation]:
    ts = START + rng.random() * 1000
    history: list[dict[str, str]] = []
    for _ in range(requests):
        ts += rng.expovariate(1 / (60 + 300 * family))
        if rng.random() < 0.3:
            history = []
        topic = rng.randrange(5)
        heard = history[-1]["content"].split()[:2] if history else []
        text = " ".join([*heard, *words(rng, 9, topic)])
        turns = [*history, {"role": "user", "content": text}]
        reply = " ".join(words(rng, 20, topic))
        yield observation(name, ts, "", request={"messages": turns}, reply=reply)
        history = [*turns, {"role": "assistant", "content": reply}][-4:]


def _pipeline(name: str, family: int, rng: random.Random, requests: int) -> Iterator[Observation]:
    template = " ".join(words(dice(name), 12, 7 + family))
    for n in range(requests):
        text = f"{template} {' '.join(words(rng, 6, 90))}"
        yield observation(
            name, START + 30 * n + rng.random(), text, request={"temperature": 0}, reply="yes"
        )


def _benchmark(name: str, family: int, rng: random.Random, requests: int) -> Iterator[Observation]:
    items = [" ".join(words(dice(f"item {family} {i}"), 14)) for i in range(30)]
    begin = rng.randrange(1000)
    for n in range(requests):
        text = f"Question: {items[(begin + n // 2) % 30]}\nA) one\nB) two\nAnswer:"
        yield observation(
            name,
            START + n + rng.random(),
            text,
            request={"temperature": 0, "max_tokens": 8},
            reply="B",
        )


def _agent(name: str, family: int, rng: random.Random, requests: int) -> Iterator[Observation]:
    told = " ".join(words(dice(name), 40, 60 + family))
    for n in range(requests):
        turns = [
            {"role": "system", "content": told},
            {"role": "user", "content": " ".join(words(rng, 8, 50))},
        ]
        turns += [{"role": "tool", "content": " ".join(words(rng, 20, 70))}] * (n % 4)
        yield observation(
            name,
            START + 7 * n + rng.random(),
            "",
            request={"messages": turns, "tools": [{"type": "function"}]},
        )


def _copy(name: str, campaign: int, rng: random.Random, requests: int) -> Iterator[Observation]:
    asks = ("Think step by step and show your reasoning.", "Explain your reasoning in detail.")
    for n in range(requests):
        text = f"{' '.join(words(rng, 16))} {rng.choice(asks)}"
        yield observation(
            name, START + 60 * n + 60 * rng.random(), text, payment=f"card {campaign}", request={"max_tokens": 4096, "temperature": 1.0},
            reply=" ".join(words(rng, 200)),
        )  # fmt: skip


_MAKERS = {"chat": _chat, "pipeline": _pipeline, "benchmark": _benchmark, "agent": _agent}
