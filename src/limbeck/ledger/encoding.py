"""Text and JSON that have one spelling only, so that no byte of a proof can be changed unnoticed.

Python's decoders forgive: base64 with stray bits, objects with a key twice, NaN. What is read here is refused unless
writing it again gives the same bytes.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar

from limbeck.errors import LedgerError

T = TypeVar("T")

_write = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""


def canonical(value: Any) -> bytes:
    """Return JSON with sorted keys, no spaces, in UTF-8.

    Raises:
        LedgerError: Something that is not JSON: NaN, an object of another type, text that is not Unicode.
    """
    try:
        return _write(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LedgerError(f"a record must be JSON, but {error}") from error


def parse(data: bytes, what: str) -> Any:
    """Read JSON that must be the canonical bytes of its value.

    Raises:
        LedgerError: It is not JSON, or spelt otherwise; `what` names it.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_no_constant)
        same = _write(value).encode() == data
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"{what} is not JSON: {error}") from error
    if not same:
        raise LedgerError(f"{what} is not canonical JSON (sorted keys, no spaces, no key twice)")
    return value


def field(row: Any, name: str, kind: type[T], what: str) -> T:
    """Return a field of a JSON object that must have exactly this type.

    Raises:
        LedgerError: `what` is no object, lacks the field, or has another type in it.
    """
    if not isinstance(row, Mapping) or name not in row:
        raise LedgerError(f"{what} lacks the field {name!r}")
    value = row[name]
    if type(value) is not kind:
        raise LedgerError(
            f"{what} must have a {kind.__name__} in {name!r}, got {type(value).__name__}"
        )
    return value


def to_base64(data: bytes) -> str:
    """Return standard base64 with padding."""
    return base64.b64encode(data).decode()


def from_base64(text: str, what: str) -> bytes:
    """Read standard base64 that has no stray bits or characters.

    Raises:
        LedgerError: It is not; `what` names it.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LedgerError(f"{what} is not base64: {text[:80]!r}") from error
    if to_base64(data) != text:
        raise LedgerError(f"{what} is not canonical base64: {text[:80]!r}")
    return data


def hashes(row: Any, name: str, what: str) -> list[bytes]:
    """Return the field of a JSON object that lists hashes of 32 bytes in base64."""
    return [hash32(item, f"{name!r} of {what}") for item in field(row, name, list, what)]


def hash32(text: Any, what: str) -> bytes:
    """Read a hash of 32 bytes in base64."""
    if not isinstance(text, str) or len(data := from_base64(text, what)) != 32:
        raise LedgerError(f"{what} must be 32 bytes in base64, got {str(text)[:80]!r}")
    return data


def to_time(ms: int) -> str:
    """Return milliseconds since 1970 as `2026-11-24T13:35:20.123Z`.

    Raises:
        LedgerError: A time outside the years 1970 to 9999.
    """
    if not 0 <= ms <= _MAX_MS:
        raise LedgerError(f"a time must lie in the years 1970 to 9999, got {ms} ms")
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def from_time(text: str, what: str) -> int:
    """Read the form that `to_time` writes, and no other; return milliseconds since 1970."""
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise LedgerError(
            f"{what} must be a time such as 2026-11-24T13:35:20.123Z, got {text[:40]!r}"
        ) from error
    ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    if ms < 0 or to_time(ms) != text:
        raise LedgerError(f"{what} must be a time such as 2026-11-24T13:35:20.123Z, got {text!r}")
    return ms


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
