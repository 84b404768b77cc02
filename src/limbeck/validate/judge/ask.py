"""Putting duels to a judge, and what its replies amount to."""

import asyncio
from collections.abc import Sequence

from limbeck.validate.judge.ballot import Verdict, read_verdict
from limbeck.validate.judge.duel import Duel, Outcome
from limbeck.validate.judge.endpoint import Judge, Reply


async def ask_all(judge: Judge, duels: Sequence[Duel]) -> list[tuple[Reply, Reply]]:
    """Put duels to a judge in both orders, all at once; the judge's own limits hold it back."""
    replies = await asyncio.gather(*(judge.ask(b) for duel in duels for b in duel.ballots()))
    return list(zip(replies[::2], replies[1::2], strict=True))


def outcome_of(replies: tuple[Reply, Reply]) -> Outcome:
    """Return what two replies say; the first has the left answer as A."""
    straight, swapped = replies
    return Outcome(_verdict(straight), _verdict(swapped))


def tally(heard: Sequence[Reply]) -> dict[str, float]:
    """Return how many replies came, from where, and how many failed or held no verdict."""
    texts = [reply.text for reply in heard if reply.text is not None]
    return {
        "replies": len(heard),
        "cached": sum(reply.cached for reply in heard),
        "failed": len(heard) - len(texts),
        "unparsed": sum(read_verdict(text) is None for text in texts),
    }


def _verdict(reply: Reply) -> Verdict | None:
    return None if reply.text is None else read_verdict(reply.text)
