"""Whether an answer holds JSON of the asked form with the right values."""

import json
from collections.abc import Mapping
from typing import Any, cast

_ABSENT = object()


def structure(text: str, gold: str, schema: Mapping[str, Any]) -> float:
    """Return 1 where the first JSON object or array of an answer fits the schema and holds the gold values, else 0.

    Args:
        text: What the model wrote; words or a fence around the JSON do not matter.
        gold: JSON: every key of a gold object must have its value in the answer, at any depth; further keys may be
            there as far as the schema allows them. Anything else must be equal.
        schema: JSON Schema, draft 2020-12.
    """
    from jsonschema import (
        Draft202012Validator,
    )  # a second of work, which a distillation need not wait for

    found = first_json(text)
    if found is _ABSENT or not Draft202012Validator(schema).is_valid(cast("Any", found)):
        return 0.0
    return float(_holds(found, json.loads(gold)))


def first_json(text: str) -> object:
    """Return the first JSON object or array in a text, or a value that equals nothing."""
    decoder = json.JSONDecoder()
    for start, letter in enumerate(text):
        if letter in "{[":
            try:
                return decoder.raw_decode(text, start)[0]
            except (ValueError, RecursionError):
                continue
    return _ABSENT


def _holds(found: object, gold: object) -> bool:
    if isinstance(gold, dict):
        if not isinstance(found, dict):
            return False
        theirs = cast("dict[str, object]", found)
        return all(
            key in theirs and _holds(theirs[key], value)
            for key, value in cast("dict[str, object]", gold).items()
        )
    # JSON tells true from 1, Python does not.
    return found == gold and isinstance(found, bool) == isinstance(gold, bool)
