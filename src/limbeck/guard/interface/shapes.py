"""Checks of single values: each returns None, or what the value would have to be.

They run for every request, so they are plain closures over plain values.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

Check = Callable[[Any], "str | None"]
"""From a value to None, or to what would be right, such as "a number from 0 to 2"."""


def number(low: float, high: float) -> Check:
    """Accept a number from `low` to `high`."""
    right = f"a number from {low:g} to {high:g}"

    def check(value: Any) -> str | None:
        kind = type(value)
        return None if (kind is float or kind is int) and low <= value <= high else right

    return check


def integer(low: int, high: int) -> Check:
    """Accept a whole number from `low` to `high`; true and false are not numbers."""
    right = f"a whole number from {low} to {high}"
    return lambda value: None if type(value) is int and low <= value <= high else right


def boolean(value: Any) -> str | None:
    """Accept true or false."""
    return None if value is True or value is False else "true or false"


def text(longest: int | None = None) -> Check:
    """Accept a string of at most `longest` characters."""
    right = "a string" if longest is None else f"a string of at most {longest} characters"
    if longest is None:
        return lambda value: None if type(value) is str else right
    return lambda value: None if type(value) is str and len(value) <= longest else right


def one_of(*words: str) -> Check:
    """Accept one of `words`."""
    known = frozenset(words)
    right = "one of " + ", ".join(words)
    return lambda value: None if type(value) is str and value in known else right


def either(*checks: Check) -> Check:
    """Accept what any of `checks` accepts."""

    def check(value: Any) -> str | None:
        rights: list[str] = []
        for one in checks:
            right = one(value)
            if right is None:
                return None
            rights.append(right)
        return ", or ".join(rights)

    return check


def list_of(item: Check, most: int, least: int = 0) -> Check:
    """Accept a list of `least` to `most` values that `item` accepts."""

    def check(value: Any) -> str | None:
        if type(value) is not list or not least <= len(value) <= most:
            return f"a list of {least} to {most} entries"
        for place, one in enumerate(value):
            if (right := item(one)) is not None:
                return f"a list whose entry {place} is {right}"
        return None

    return check


def pairs(value_check: Check, most: int, longest_key: int = 64) -> Check:
    """Accept an object of at most `most` free keys, each with a value that `value_check` accepts."""

    def check(value: Any) -> str | None:
        if type(value) is not dict or len(value) > most:
            return f"an object of at most {most} keys"
        for key, one in value.items():
            if len(key) > longest_key:
                return f"an object whose keys have at most {longest_key} characters"
            if (right := value_check(one)) is not None:
                return f"an object whose {key!r} is {right}"
        return None

    return check


def fields(known: Mapping[str, Check], required: Collection[str] = ()) -> Check:
    """Accept an object that has only `known` keys; null is as good as absent where a key is not required."""
    must = frozenset(required)
    names = ", ".join(known)

    def check(value: Any) -> str | None:
        if type(value) is not dict:
            return f"an object of {names}"
        for key, one in value.items():
            inner = known.get(key)
            if inner is None:
                return f"an object without {key[:64]!r}, of {names} only"
            if one is None and key not in must:
                continue
            if (right := inner(one)) is not None:
                return f"an object whose {key} is {right}"
        for key in must:
            if key not in value:
                return f"an object with {key}"
        return None

    return check


def by_type(kinds: Mapping[str, Check], key: str = "type") -> Check:
    """Accept an object that names its kind under `key`, and is what that kind must be."""
    names = ", ".join(kinds)

    def check(value: Any) -> str | None:
        if type(value) is not dict:
            return f"an object with {key}"
        kind = value.get(key)
        inner = kinds.get(kind) if type(kind) is str else None
        if inner is None:
            return f"an object whose {key} is one of {names}"
        return inner(value)

    return check


def free_object(value: Any) -> str | None:
    """Accept any object: a JSON Schema is the caller's own text, like a message."""
    return None if type(value) is dict else "an object"
