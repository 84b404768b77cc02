"""Server-sent events as bytes arrive: where one ends, and what it says."""

import re

_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE = re.compile(rb"\r\n|\n|\r")
DONE = b"[DONE]"


class Events:
    """Cuts a stream of bytes into events; `rest` is the beginning of the next one."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that `chunk` completes, each with the blank line that ends it."""
        data = self.rest + chunk if self.rest else chunk
        events: list[bytes] = []
        start = 0
        if b"\r" not in data:  # nearly every stream: plain newlines, found faster
            while (end := data.find(b"\n\n", start)) >= 0:
                events.append(data[start : end + 2])
                start = end + 2
        else:
            for found in _END.finditer(data):
                events.append(data[start : found.end()])
                start = found.end()
        self.rest = data[start:]
        return events


def payload(event: bytes) -> bytes | None:
    """Return an event's data, or None for one without any, such as a comment that keeps a stream open."""
    if event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2:
        data = event[6:-2]
        if b"\r" not in data:
            return data
    lines = [_value(line) for line in _LINE.split(event) if line[:5] == b"data:" or line == b"data"]
    return b"\n".join(lines) if lines else None


def _value(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value[:1] == b" " else value


def with_payload(event: bytes, data: bytes) -> bytes:
    """Return `event` with other data; its other fields and its line ends stay. `data` must be one line."""
    out: list[bytes] = []
    written = False
    for line in re.split(rb"(?<=\n)|(?<=\r)(?!\n)", event):
        if not line.startswith(b"data"):
            out.append(line)
        elif not written:
            body = line.rstrip(b"\r\n")
            out.append(b"data: " + data + line[len(body) :])
            written = True
    return b"".join(out)
