"""People who chat: real ShareGPT sessions, or real first prompts with composed follow-ups."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from limbeck.guard.observation import Observation
from traffic import clock, reply
from traffic.account import Account, Exchange, assistant, observe, pick, rounds, user
from traffic.material import Material, words_of

_HISTORY = 8
"""Messages of a conversation that a client sends along at the most."""
_LANES = 4
"""People whom a reseller's account serves at the same moment, at the most."""
_FOLLOW_UPS = (
    "continue", "go on", "Can you make it shorter?", "Make that a bit more formal.", "why is that?",
    "Could you explain {word} in simpler terms?", "What do you mean by {word}?", "give me 3 examples of {word}",
    "Rewrite it without {word}.", "And how does {word} fit with {other}?", "thanks, now add something on {word}",
    "that's not quite what I asked. I care about {word}, not {other}", "Put this into a table please",
    "can you translate that to spanish", "Are you sure about {word}?", "ok and what about {word}?",
    "turn it into bullet points", "Now write it as an email to my boss.", "hmm, it says {word} {other}. what's wrong?",
    "Give me a better title", "what would you do in my place?", "Let's go step by step. What about {word}?",
)  # fmt: skip


def sessions_of(
    account: Account, material: Material, rng: np.random.Generator
) -> Iterator[Sequence[str]]:
    """Yield conversation after conversation of an account's family, as user turns."""
    source = account.family.partition("/")[2]
    if source == "sharegpt":
        yield from rounds(rng, material.sessions)
    for first in rounds(rng, material.prompts(source)):
        more = min(8, int(rng.geometric(0.45)) - 1)
        said = list(words_of(first)) or ["it", "that"]
        yield (
            first,
            *(
                pick(rng, _FOLLOW_UPS).format(word=pick(rng, said), other=pick(rng, said))
                for _ in range(more)
            ),
        )


def converse(
    rng: np.random.Generator,
    turns: Sequence[str],
    passages: Sequence[str],
    options: dict[str, object],
) -> Iterator[Exchange]:
    """Yield a conversation's exchanges, each with the history that a client would send."""
    history: list[dict[str, str]] = []
    for turn in turns:
        answer = reply.prose(rng, turn, passages)
        yield Exchange([*history[-_HISTORY:], user(turn)], answer, options)
        history += [user(turn), assistant(answer)]


def chat(account: Account, material: Material) -> Iterator[Observation]:
    """Yield the requests of one person."""
    rng = np.random.default_rng(account.seed)
    options: dict[str, object] = {"stream": True} if rng.random() < 0.8 else {}
    if rng.random() < 0.3:
        options["temperature"] = float(pick(rng, (0.7, 0.8, 1.0)))
    if rng.random() < 0.2:
        options["max_tokens"] = int(pick(rng, (512, 1024, 2048)))
    conversations = sessions_of(account, material, rng)
    passages = material.items(account.prose)
    plan = list[Sequence[str]]()
    while sum(map(len, plan)) < account.requests:
        plan.append(next(conversations)[: account.requests])
    begins = clock.daily(rng, account.start, account.days, len(plan)).tolist()
    yield from islice(_talk(account, rng, begins, plan, passages, options), account.requests)


def _talk(
    account: Account,
    rng: np.random.Generator,
    begins: Sequence[float],
    plan: Iterable[Sequence[str]],
    passages: Sequence[str],
    options: dict[str, object],
) -> Iterator[Observation]:
    """Yield one conversation after the other, each at its time or when the one before is over."""
    ts = account.start
    for begin, turns in zip(begins, plan, strict=False):
        ts = max(float(begin), ts)
        waits = clock.pauses(rng, len(turns), 70.0)
        for wait, exchange in zip(waits, converse(rng, turns, passages, options), strict=True):
            yield observe(account, ts, exchange)
            ts += float(wait)


def resell(account: Account, material: Material) -> Iterator[Observation]:
    """Yield the requests of many people behind one account, at work side by side in several time zones."""
    lanes = [_lane(account, material, lane) for lane in range(_LANES)]
    yield from islice(heapq.merge(*lanes, key=lambda one: one.ts), account.requests)


def _lane(account: Account, material: Material, lane: int) -> Iterator[Observation]:
    rng = np.random.default_rng([account.seed, lane])
    people = sessions_of(account, material, rng)
    begins = clock.daily(rng, account.start, account.days, max(1, account.requests // _LANES))
    turns = (conversation[:4] for conversation in people)
    yield from _talk(
        account, rng, begins.tolist(), turns, material.items(account.prose), {"stream": True}
    )
