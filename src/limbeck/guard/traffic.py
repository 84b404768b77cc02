"""The traffic log: one JSON object per line becomes one Observation, or one clear error.

docs/traffic-format.md is the contract. Lines keep the order of the file; whoever measures time clamps it.
"""

import hashlib
import math
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import orjson

from limbeck.errors import GuardError
from limbeck.guard import asked
from limbeck.guard.observation import Observation, Response

REQUIRED = ("ts", "account", "model", "endpoint")
ASKED = ("request", "measured")
"""What was asked: the body, or what was measured of it where no text is kept."""
LINKS = ("org", "ip", "asn", "user_agent", "payment")
OPTIONAL = (*LINKS, "id", "response", "declared_use", "attributes")
_KNOWN = frozenset((*REQUIRED, *ASKED, *OPTIONAL))
REMEMBERED = 65_536
"""Lines among which a duplicate is noticed."""
LOG_NAMES = (".jsonl", ".jsonl.gz")
"""Files of a folder that are its log."""
LATE_SECONDS = 1.0
"""A line this much older than the newest before it is counted as late: logs are written in turns."""
JUMP_SECONDS = 7 * 86_400.0
"""A step forward that is counted as a jump of the clock, or a hole in the log."""


@dataclass(slots=True)
class Intake:
    """What was read and what was found wrong with it; a number, never a silence."""

    lines: int = 0
    kept: int = 0
    duplicates: int = 0
    late: int = 0
    jumps: int = 0
    skipped: int = 0
    first_skipped: list[str] = field(default_factory=list)
    """The first ten messages of lines that were skipped."""

    def summary(self) -> str:
        """Return one sentence for the reader of a replay."""
        return (
            f"{self.kept} of {self.lines} lines read; {self.duplicates} duplicates dropped, {self.late} out of order, "
            f"{self.jumps} jumps of the clock, {self.skipped} unreadable"
        )


def read_log(
    path: Path, intake: Intake | None = None, *, skip_unreadable: bool = False
) -> Iterator[Observation]:
    """Yield the observations of a log, in the order of its lines, in bounded memory.

    Duplicates (same `id`, or the same bytes among the last 65,536 lines) are dropped and counted; lines out of
    order and jumps of the clock are kept and counted.

    Args:
        path: A file of JSON lines, `.gz` is unpacked; or a folder of such files, read in the order of their names.
        intake: Counts into this value.
        skip_unreadable: Count an unreadable line and go on, instead of raising.

    Raises:
        GuardError: The file is missing or holds no line, or a line is not what the format says; names the line.
    """
    counted = Intake() if intake is None else intake
    try:
        yield from _observations(_lines(path), counted, skip_unreadable=skip_unreadable)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise GuardError(f"traffic log {path} cannot be read: {why}") from None
    if counted.kept == 0:
        raise GuardError(f"traffic log {path} holds no request")


def read_lines(
    lines: Iterable[bytes], intake: Intake, *, source: str, skip_unreadable: bool = False
) -> Iterator[Observation]:
    """Yield the observations of an iterable of lines; see `read_log`."""
    placed = ((f"{source} line {number}", line) for number, line in enumerate(lines, 1))
    yield from _observations(placed, intake, skip_unreadable=skip_unreadable)


def log_files(path: Path) -> list[Path]:
    """Return a log's files in order: one, or those of a folder."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.name.endswith(LOG_NAMES))


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every line with its place."""
    for name in log_files(path):
        with _open(name) as file:
            for number, line in enumerate(file, 1):
                yield f"{name} line {number}", line


def _observations(
    lines: Iterable[tuple[str, bytes]], intake: Intake, *, skip_unreadable: bool
) -> Iterator[Observation]:
    seen: OrderedDict[bytes, None] = OrderedDict()
    newest = -math.inf
    for place, line in lines:
        if not line.strip():
            continue
        intake.lines += 1
        try:
            values = _parse(line)
            observation = to_observation(values)
        except GuardError as error:
            message = f"{place}: {error}"
            if not skip_unreadable:
                raise GuardError(message) from None
            intake.skipped += 1
            if len(intake.first_skipped) < 10:
                intake.first_skipped.append(message)
            continue
        if _is_known(_identity(values, line), seen):
            intake.duplicates += 1
            continue
        intake.kept += 1
        intake.late += observation.ts < newest - LATE_SECONDS
        intake.jumps += observation.ts > newest + JUMP_SECONDS and newest > -math.inf
        newest = max(newest, observation.ts)
        yield observation


def to_observation(values: Mapping[str, Any]) -> Observation:
    """Return the observation that one line says.

    Raises:
        GuardError: A field is missing, unknown, or of the wrong type; names it.
    """
    _check_names(values)
    request = values.get("request")
    measured = None
    if request is None:
        request, measured = {}, asked.from_values(values["measured"])
    if not isinstance(request, dict):
        raise GuardError(f"`request` must be an object, the OpenAI body, got {_short(request)}")
    attributes = values.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise GuardError(f"`attributes` must be an object, got {_short(attributes)}")
    declared = values.get("declared_use")
    return Observation(
        ts=parse_clock(values["ts"]),
        account=_named(values, "account"),
        org=_text(values, "org"),
        model=_named(values, "model"),
        endpoint=_named(values, "endpoint"),
        request=cast("dict[str, Any]", request),
        ip=_text(values, "ip"),
        asn=_text(values, "asn"),
        user_agent=_text(values, "user_agent"),
        payment=_text(values, "payment"),
        response=_response(values.get("response")),
        declared_use=None if declared is None else _text(values, "declared_use"),
        attributes={str(k): str(v) for k, v in cast("dict[Any, Any]", attributes).items()},
        measured=measured,
    )


def from_observation(observation: Observation) -> dict[str, Any]:
    """Return the line of an observation as JSON values; `to_observation` reads it back."""
    values: dict[str, Any] = {
        "ts": write_clock(observation.ts),
        "account": observation.account,
        "model": observation.model,
        "endpoint": observation.endpoint,
    }
    if observation.measured is None:
        values["request"] = observation.request
    else:
        values["measured"] = asked.to_values(observation.measured)
    values.update({name: getattr(observation, name) for name in LINKS})
    if observation.declared_use is not None:
        values["declared_use"] = observation.declared_use
    if observation.attributes:
        values["attributes"] = dict(observation.attributes)
    if (response := observation.response) is not None:
        values["response"] = {
            "text": response.text,
            "prompt_tokens": response.prompt_tokens,
            "completion_tokens": response.completion_tokens,
            "status": response.status,
        }
    return values


def parse_clock(value: object) -> float:
    """Return seconds since 1970-01-01 UTC of an RFC 3339 time with its offset.

    Raises:
        GuardError: It is no such time, or says no offset.
    """
    if not isinstance(value, str):
        raise GuardError(
            f"`ts` must be an RFC 3339 time such as 2026-11-24T12:00:00Z, got {_short(value)}"
        )
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise GuardError(
            f"`ts` must be an RFC 3339 time such as 2026-11-24T12:00:00Z, got {_short(value)}"
        ) from None
    if time.tzinfo is None:
        raise GuardError(f"`ts` must end in Z or an offset, got {value!r}")
    return time.timestamp()


def write_clock(ts: float) -> str:
    """Return seconds since 1970-01-01 UTC as an RFC 3339 time, to the microsecond."""
    return datetime.fromtimestamp(ts, UTC).isoformat().replace("+00:00", "Z")


def _open(path: Path) -> Any:
    if path.suffix == ".gz":
        import gzip

        return gzip.open(path, "rb")
    return path.open("rb")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise GuardError(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        raise GuardError(f"a line must be a JSON object, got {_short(values)}")
    return cast("dict[str, Any]", values)


def _check_names(values: Mapping[str, Any]) -> None:
    missing = [name for name in REQUIRED if values.get(name) is None]
    if all(values.get(name) is None for name in ASKED):
        missing.append("request")
    if missing:
        raise GuardError(
            f"`{missing[0]}` is missing; a line needs {', '.join((*REQUIRED, 'request'))}"
        )
    unknown = [name for name in values if name not in _KNOWN]
    if unknown:
        raise GuardError(
            f"{_short(unknown[0])} is not a field of the format; further fields belong into `attributes`"
        )


def _named(values: Mapping[str, Any], name: str) -> str:
    text = _text(values, name)
    if not text:
        raise GuardError(f"`{name}` must not be empty")
    return text


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise GuardError(f"`{name}` must be a string, got {_short(value)}")
    return str(value)


def _response(value: object) -> Response | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise GuardError(f"`response` must be an object, got {_short(value)}")
    values = cast("dict[str, Any]", value)
    text = values.get("text")
    if text is not None and not isinstance(text, str):
        raise GuardError(f"`response.text` must be a string, got {_short(text)}")
    status = _count(values, "status")
    return Response(
        text=text,
        prompt_tokens=_count(values, "prompt_tokens"),
        completion_tokens=_count(values, "completion_tokens"),
        status=200 if status is None else status,
    )


def _count(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise GuardError(f"`response.{name}` must be an integer of at least 0, got {_short(value)}")
    return value


def _identity(values: Mapping[str, Any], line: bytes) -> bytes:
    name = values.get("id")
    material = line.strip() if name is None else f"id:{name}".encode()
    return hashlib.blake2b(material, digest_size=16).digest()


def _is_known(identity: bytes, seen: OrderedDict[bytes, None]) -> bool:
    if identity in seen:
        return True
    seen[identity] = None
    if len(seen) > REMEMBERED:
        seen.popitem(last=False)
    return False


def _short(value: object) -> str:
    """A stranger's value in an error message: short, and on one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
