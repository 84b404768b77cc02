"""One request, measured: numbers and keyed hashes, and no text. What every memory that it touches takes in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from limbeck.errors import GuardError
from limbeck.guard.signals.ground import CELLS
from limbeck.guard.signals.template import SAMPLE

OF_REQUEST = (
    ("standalone", 1), ("dependent", -1), ("reasoning", 1), ("rubric", 1), ("synthesis", 1), ("hidden", 1),
    ("logprobs", 1), ("logit_bias", 1), ("many", 1), ("prefill", 1), ("saturated", 1), ("warm", 1), ("tools", -1),
    ("rich", 1), ("exam", -1), ("suite", -1), ("long_prompt", -1), ("framed", -1),
)  # fmt: skip
"""Read off one request alone: name, and which way it points."""
TOPICS = 4
"""Words of a request that stand for its topic: the smallest hashes among its longer ones."""
_PLACE = {name: place for place, (name, _) in enumerate(OF_REQUEST)}
_STANDALONE, _RICH, _SUITE = _PLACE["standalone"], _PLACE["rich"], _PLACE["suite"]
_ELICITS = slice(_PLACE["reasoning"], _PLACE["hidden"] + 1)
_PROBES = slice(_PLACE["logprobs"], _PLACE["prefill"] + 1)
_FIELDS = {"key", "values", "sample", "topics", "identity", "tokens"}
_LARGEST = 1 << 64


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured of one request. Hashes have 64 bits and are keyed; shares lie in [0, 1]."""

    values: tuple[float, ...]
    """In the order of OF_REQUEST."""
    sample: tuple[int, ...]
    """Ascending."""
    topics: tuple[int, ...]
    identity: int
    tokens: float
    """Answer tokens released."""

    @property
    def cells(self) -> tuple[int, ...]:
        """The ground that the request stands on."""
        return self.sample[:CELLS]

    @property
    def standalone(self) -> float:
        """Whether it grows out of nothing said before."""
        return self.values[_STANDALONE]

    @property
    def rich(self) -> float:
        """Its answer's length as a share of a full trace."""
        return self.values[_RICH]

    @property
    def suite(self) -> float:
        """The share of it that a known suite holds."""
        return self.values[_SUITE]

    @property
    def elicits(self) -> float:
        """The clearest of its requests for what a student learns from."""
        return max(self.values[_ELICITS])

    @property
    def probes(self) -> float:
        """The clearest of its uses of the interface that reveal the distribution."""
        return max(self.values[_PROBES])


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured request, and the name of the key that its hashes were made under."""

    asked: Asked
    key: str


def to_values(measured: Measured) -> dict[str, Any]:
    """Return a measured request as JSON values; shares that are 0 are left out."""
    asked = measured.asked
    names = zip(OF_REQUEST, asked.values, strict=True)
    return {
        "key": measured.key,
        "values": {name: value for (name, _), value in names if value},
        "sample": list(asked.sample),
        "topics": list(asked.topics),
        "identity": asked.identity,
        "tokens": asked.tokens,
    }


def from_values(value: object) -> Measured:
    """Return the measured request that `to_values` wrote.

    Raises:
        GuardError: A field is missing, unknown, or out of its range; names it.
    """
    if not isinstance(value, dict):
        raise GuardError("`measured` must be an object")
    given = cast("dict[str, Any]", value)
    if given.keys() != _FIELDS:
        odd = sorted(given.keys() ^ _FIELDS)
        raise GuardError(f"`measured` must have {', '.join(sorted(_FIELDS))}; see {odd[0]!r}")
    if not isinstance(given["key"], str):
        raise GuardError("`measured.key` must be a string")
    asked = Asked(
        _shares(given["values"]),
        _hashes(given["sample"], "sample", SAMPLE),
        _hashes(given["topics"], "topics", TOPICS),
        _hashes([given["identity"]], "identity", 1)[0],
        _number(given["tokens"], "tokens", 2.0**64),
    )
    return Measured(asked, given["key"])


def _shares(value: object) -> tuple[float, ...]:
    if not isinstance(value, dict):
        raise GuardError("`measured.values` must be an object")
    given = cast("Mapping[str, Any]", value)
    unknown = next((name for name in given if name not in _PLACE), None)
    if unknown is not None:
        raise GuardError(f"`measured.values` has {unknown!r}, which nothing here measures")
    return tuple(_number(given.get(name, 0.0), f"values.{name}", 1.0) for name, _ in OF_REQUEST)


def _number(value: object, name: str, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise GuardError(f"`measured.{name}` must be a number from 0 to {most:g}")
    return float(value)


def _hashes(value: object, name: str, most: int) -> tuple[int, ...]:
    hashes = cast("list[Any]", value) if isinstance(value, list) else []
    good = isinstance(value, list) and all(type(h) is int and 0 <= h < _LARGEST for h in hashes)
    if not good or len(hashes) > most:
        raise GuardError(f"`measured.{name}` must be integers of 64 bits, at most {most} of them")
    return tuple(hashes)
