"""Whether the tokens of log-probabilities spell exactly a given text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.guard.seal.tags import Tags

_SPECIAL = re.compile(r"<[|/]?[A-Za-z_0-9]+\|?>")
"""How a token looks that ends an answer and is no part of its text, such as `<|im_end|>` or `</s>`."""


class Spelling:
    """The tokens of one text, as they arrive in pieces beside it.

    A character of several bytes may take several tokens, which are there before the text shows it; `_ahead`
    holds those bytes.
    """

    __slots__ = ("_ahead", "_tags")

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        self._ahead = b""

    def holds(self, logprobs: Any, text: str, *, ends: bool) -> bool:
        """Return whether the tokens of this piece spell `text`; `ends` allows a mark of the end after it."""
        tokens = _tokens(logprobs)
        if tokens is None:
            return False
        wanted = text.encode("utf-8", "surrogatepass")
        spelled = self._ahead + b"".join(tokens)
        self._ahead = b""
        if not spelled.startswith(wanted):
            return False
        beyond = spelled[len(wanted) :]
        if not beyond:
            return True
        if _unfinished(beyond):
            self._ahead = beyond
            return True
        return ends and self._marks_the_end(beyond)

    def _marks_the_end(self, beyond: bytes) -> bool:
        mark = beyond.decode("utf-8", "replace")
        return _SPECIAL.fullmatch(mark) is not None and not self._tags.outside.search(mark)


def _tokens(logprobs: Any) -> list[bytes] | None:
    """Return the tokens of any of the API's three forms of log-probabilities."""
    if type(logprobs) is list:
        return _spelled_out(logprobs)
    if type(logprobs) is not dict:
        return None
    known = {"content", "refusal", "tokens", "token_logprobs", "top_logprobs", "text_offset"}
    if not logprobs.keys() <= known:
        return None
    if type(logprobs.get("tokens")) is list:
        return _plain(logprobs["tokens"])
    lists = [one for name in ("content", "refusal") if type(one := logprobs.get(name)) is list]
    return _spelled_out([entry for one in lists for entry in one])


def _spelled_out(entries: Sequence[Any]) -> list[bytes] | None:
    tokens: list[bytes] = []
    for entry in entries:
        if type(entry) is not dict or not entry.keys() <= {
            "token",
            "logprob",
            "bytes",
            "top_logprobs",
        }:
            return None
        token = _token(entry)
        if token is None:
            return None
        tokens.append(token)
    return tokens


def _token(entry: Mapping[str, Any]) -> bytes | None:
    name, numbers = entry.get("token"), entry.get("bytes")
    if type(name) is not str:
        return None
    spelled = name.encode("utf-8", "surrogatepass")
    if numbers is None:
        return spelled
    try:
        said = bytes(numbers)
    except (TypeError, ValueError):
        return None
    # Both leave, so both must say the same; a token that is part of a character is named in one of two ways.
    same = said == spelled or name == said.decode("utf-8", "replace") or name == _escaped(said)
    return said if same else None


def _escaped(said: bytes) -> str:
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in said)


def _plain(tokens: Sequence[Any]) -> list[bytes] | None:
    if not all(type(token) is str for token in tokens):
        return None
    return [token.encode("utf-8", "surrogatepass") for token in tokens]


def _unfinished(data: bytes) -> bool:
    """Return whether `data` is the beginning of one character in UTF-8."""
    if len(data) > 3:
        return False
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start == 0 and error.reason == "unexpected end of data"
    return False
