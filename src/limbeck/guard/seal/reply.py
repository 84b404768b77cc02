"""A whole reply, sealed: the bytes that may leave, or None where the reply cannot be read."""

from typing import Any, NamedTuple

import orjson

from limbeck.guard.seal.fields import Scrubber
from limbeck.guard.seal.tags import Tags, visible

RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"


class Sealed(NamedTuple):
    """A reply as it may leave: `body` is the upstream's own where nothing had to be taken out."""

    body: bytes
    reply: dict[str, Any]
    cut: bool


def seal_reply(
    body: bytes, path: str, tags: Tags, *, within: str | None = None, logprobs: bool = False
) -> Sealed | None:
    """Return the reply without its hidden reasoning; None if it is not JSON, so that nothing can be promised.

    `within` is the mark inside of which the answer begins, `logprobs` whether log-probabilities may leave.
    """
    try:
        reply = orjson.loads(body)
    except ValueError:
        return None
    if type(reply) is not dict:
        return None
    if path == EMBEDDINGS:
        return Sealed(body, reply, cut=False)
    scrubber = Scrubber(tags, within=within, logprobs=logprobs)
    if path == RESPONSES:
        scrubber.response(reply)
    else:
        scrubber.completion(reply)
    return Sealed(orjson.dumps(reply) if scrubber.cut else body, reply, scrubber.cut)


def seal_error(body: bytes, tags: Tags) -> bytes | None:
    """Return an error's body without hidden reasoning; None if it is not text."""
    try:
        reply = orjson.loads(body)
    except ValueError:
        return _seal_text(body, tags)
    if type(reply) is not dict:
        return None
    scrubber = Scrubber(tags)
    scrubber.error(reply)
    return orjson.dumps(reply) if scrubber.cut else body


def _seal_text(body: bytes, tags: Tags) -> bytes | None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    shown = visible(tags, text)
    return body if shown == text else shown.encode()
