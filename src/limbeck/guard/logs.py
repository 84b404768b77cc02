"""JSON lines on standard error: one event, its time, its fields."""

import sys
from datetime import UTC, datetime
from typing import Any

import orjson


def log(event: str, **fields: Any) -> None:
    """Write one line. Texts of users never belong into a field."""
    line = {"ts": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
    sys.stderr.buffer.write(orjson.dumps(line, default=str) + b"\n")
    sys.stderr.buffer.flush()
