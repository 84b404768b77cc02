"""What one request leaves behind for the keeper, as a frame of bytes and back.

A frame is a little-endian u32 with the length of the rest, a u32 with the length of the facts, the facts as
a JSON list, and the request's body as it came. The body is not parsed on the way.
"""

import struct
from typing import Any, NamedTuple

import orjson

from limbeck.guard.observation import Observation, Response

_LENGTHS = struct.Struct("<II")


class Facts(NamedTuple):
    """Who asked for what, and what came of it. Times in seconds; `ip` and below are empty where unknown."""

    ts: float
    account: str
    org: str
    user: str
    key: str
    endpoint: str
    model: str
    status: int
    stream: bool
    seconds: float
    prompt_tokens: int | None
    completion_tokens: int | None
    text: str | None
    ip: str
    user_agent: str
    payment: str
    use: str | None
    code: str
    """The refusal's code, empty where the request was served."""
    removed: tuple[str, ...]
    cut: bool
    """Whether hidden reasoning was taken out of the reply."""
    trace: str
    """The `traceparent` header."""


def encode(facts: Facts, body: bytes) -> bytes:
    """Return the frame."""
    head = orjson.dumps(tuple(facts))
    return b"".join((_LENGTHS.pack(4 + len(head) + len(body), len(head)), head, body))


def decode(frame: bytes) -> tuple[Facts, bytes]:
    """Return what `encode` was given; `frame` is without its first length."""
    (size,) = struct.unpack_from("<I", frame)
    facts: list[Any] = orjson.loads(frame[4 : 4 + size])
    facts[18] = tuple(facts[18])
    return Facts(*facts), frame[4 + size :]


def observation(facts: Facts, body: bytes) -> Observation:
    """Return the request as the watch sees it; its time in full microseconds, as a traffic log can hold it."""
    return Observation(
        ts=round(facts.ts, 6),
        account=f"{facts.account}/{facts.user}" if facts.user else facts.account,
        org=facts.org,
        model=facts.model,
        endpoint=facts.endpoint,
        request=orjson.loads(body),
        ip=facts.ip,
        user_agent=facts.user_agent,
        payment=facts.payment,
        response=Response(facts.text, facts.prompt_tokens, facts.completion_tokens, facts.status),
        declared_use=facts.use,
    )
