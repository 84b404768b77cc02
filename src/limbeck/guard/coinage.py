"""Trace's rule of tossing, handed in from above: guard and trace do not know each other."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from limbeck.errors import GuardError
from limbeck.guard.tossing import Toss

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Coinage:
    """`toss` gives the bit of a pair, `digest` its hash in hexadecimal; both take prompt, answers and account."""

    toss: Toss
    digest: Callable[[str, str, str, str], str]


def read_key(variable: str, environment: Mapping[str, str] = os.environ) -> bytes:
    """Return the coins' key.

    Raises:
        GuardError: The environment has none, or it is not 64 hexadecimal digits.
    """
    try:
        key = bytes.fromhex(environment.get(variable, ""))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise GuardError(
            f"coins need a key of 64 hexadecimal digits in the environment, in {variable}"
        )
    return key


def keeping(path: Path, coinage: Coinage) -> Callable[[Mapping[str, Any]], str]:
    """Return a function that writes a coin to a file which only its owner reads, and returns the coin's hash."""

    def keep(coin: Mapping[str, Any]) -> str:
        digest = coinage.digest(coin["prompt"], coin["y0"], coin["y1"], coin["account"])
        line = orjson.dumps({**coin, "hash": digest}) + b"\n"
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "ab") as file:
            file.write(line)
        return digest

    return keep
