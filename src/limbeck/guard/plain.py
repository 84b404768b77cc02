"""Values as JSON: times as ISO 8601 in UTC, names in lower case, never a hash of a key."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum
from typing import Any, Final

TIMES: Final = frozenset(
    {"created", "closed", "expires", "revoked", "starts", "withdrawn", "since", "lifted", "filed"}
    | {"due", "decided", "ts"}
)
"""The fields that hold a time, in every value of the guard."""
SECRET: Final = frozenset({"digest"})


def plain(value: Any, name: str = "") -> Any:
    """Return a value of `limbeck.guard` as what JSON holds."""
    match value:
        case IntEnum():
            return value.name.lower()
        case Enum():
            return value.value
        case float() | int() if name in TIMES:
            return moment(value)
        case Mapping():
            return {str(k): plain(v, str(k)) for k, v in value.items()}
        case Set():
            return sorted(value)
        case str() | bytes():
            return value
        case Sequence():
            return [plain(item) for item in value]
        case _ if is_dataclass(value):
            shown = (field.name for field in fields(value) if field.name not in SECRET)
            return {field: plain(getattr(value, field), field) for field in shown}
        case _:
            return value


def moment(seconds: float) -> str:
    """Return a time as ISO 8601, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
