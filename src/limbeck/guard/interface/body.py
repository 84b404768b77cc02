"""A request's bytes as one JSON object, or the reason why they are not one."""

import json
from typing import Any

import orjson

from limbeck.guard.refusal import Refusal

MAX_DEPTH = 48
"""Objects and lists within each other; real tool schemas stay below 20."""


def parse(raw: bytes, *, max_depth: int = MAX_DEPTH) -> dict[str, Any] | Refusal:
    """Return the object that a body spells.

    Two readers of one body must not read two things, so what parsers are known to disagree about is refused:
    duplicate keys, invalid UTF-8, NaN and infinities, lone surrogates, and nesting beyond `max_depth`.
    """
    try:
        value = orjson.loads(raw)
    except (
        ValueError
    ) as error:  # orjson's error; includes invalid UTF-8, NaN and its own depth limit
        return Refusal(400, "invalid_json", f"the body must be JSON in UTF-8: {error}")
    if type(value) is not dict:
        return Refusal(400, "invalid_json", "the body must be one JSON object")
    if raw.count(b"{") + raw.count(b"[") > max_depth and _depth(value) > max_depth:
        return Refusal(400, "too_deep", f"the body must nest at most {max_depth} levels")
    # What orjson would write itself holds no key twice; this spares most bodies the slower look.
    if orjson.dumps(value) != raw and (key := _duplicate(raw)) is not None:
        return Refusal(400, "duplicate_key", f"the body must name {key!r} once in an object", key)
    return value


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            child
            for one in level
            for child in (one.values() if type(one) is dict else one)
            if type(child) is dict or type(child) is list
        ]
    return deepest


def _duplicate(raw: bytes) -> str | None:
    """Return a key that an object of valid JSON holds twice, after its escapes are read."""
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in pairs}) < len(pairs):
            seen: set[str] = set()
            found.extend(key for key, _ in pairs if key in seen or seen.add(key))  # pyright: ignore[reportUnknownArgumentType]

    # Numbers are not needed here, and Python refuses to read those of thousands of digits.
    json.loads(raw, object_pairs_hook=look, parse_int=len, parse_float=len)
    return found[0] if found else None
