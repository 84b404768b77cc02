"""Sealed coins on the data path: two genuine answers of the model, and a keyed bit that says which is served."""

import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from limbeck.guard.ask import Ask
from limbeck.guard.interface.endpoints import CHAT, COMPLETIONS
from limbeck.guard.said import text_of
from limbeck.guard.seal.tags import Tags, visible
from limbeck.guard.upstream.door import Header, Reply

Toss = Callable[[str, str, str, str], int]
"""From prompt, first answer, second answer and account to the bit; the rule and its key are trace's."""


@dataclass(slots=True)
class Held:
    """A reply that was read to its end, to be sent on."""

    status: int
    headers: list[Header]
    whole: bytes

    async def chunk(self) -> bytes:
        """Return all of it, then b""."""
        whole, self.whole = self.whole, b""
        return whole

    async def body(self, most: int) -> bytes:
        """Return all of it."""
        return self.whole

    def close(self) -> None:
        """Do nothing: the connection was given back already."""


class Coins:
    """Which requests coins are drawn for, and which of two replies is served.

    A coin is drawn for a share of the requests that sample anew each time: no seed, a temperature above 0, one
    answer, not streamed.
    """

    def __init__(
        self, toss: Toss, share: float, accounts: frozenset[str], rng: random.Random | None = None
    ) -> None:
        self._toss = toss
        self._share = share
        self._accounts = accounts
        self._rng = rng or random.Random(secrets.randbits(256))  # noqa: S311 (which requests, not which answer)

    def wants(self, ask: Ask) -> bool:
        """Say whether this request is one of them."""
        admitted, holder = ask.admitted, ask.holder
        if admitted is None or holder is None or admitted.stream:
            return False
        if ask.endpoint not in (CHAT, COMPLETIONS):
            return False
        if self._accounts and holder.account.id not in self._accounts:
            return False
        asked = admitted.request
        if (
            asked.get("seed") is not None
            or asked.get("temperature") == 0
            or (asked.get("n") or 1) > 1
        ):
            return False
        return self._rng.random() < self._share

    def choose(
        self, ask: Ask, replies: tuple[Held, Held], tags: Tags
    ) -> tuple[Reply, bytes | None]:
        """Return the reply to serve, and the coin as a line of JSON where one was drawn.

        Without two different answers there is nothing to choose, and the first is served.
        """
        assert ask.holder is not None  # noqa: S101
        assert ask.admitted is not None  # noqa: S101
        first, second = (_said(ask, reply, tags) for reply in replies)
        if first is None or second is None or first.strip() == second.strip():
            return replies[0], None
        prompt = prompt_of(ask.admitted.request)
        account = ask.holder.account.id
        bit = self._toss(prompt, first, second, account)
        coin = {"prompt": prompt, "y0": first, "y1": second, "served": bit, "account": account}
        return replies[bit], orjson.dumps(coin)


def prompt_of(request: Mapping[str, Any]) -> str:
    """Return a request's prompt: its text where it is one text, else its turns as JSON."""
    turns = request.get("messages")
    if turns is None:
        prompt = request.get("prompt")
        return prompt if type(prompt) is str else orjson.dumps(prompt).decode()
    if len(turns) == 1 and type(turns[0].get("content")) is str:
        return turns[0]["content"]
    return orjson.dumps(turns).decode()


def _said(ask: Ask, reply: Held, tags: Tags) -> str | None:
    """Return what the account would see of a reply."""
    if reply.status != 200:
        return None
    try:
        read = orjson.loads(reply.whole)
    except ValueError:
        return None
    said = text_of(read) if type(read) is dict else None
    return said if said is None or not ask.sealed else visible(tags, said, ask.within(tags))
