"""Replies of judges by the hash of what was asked, so that no question is paid for twice.

One JSON line a reply, appended when it comes: `{"key": SHA-256, "text": ...}`. The question itself, which may be a
user's, is not kept. A line that a crash cut short is left out when the file is read again.
"""

import json
from pathlib import Path
from typing import Any

from limbeck.artefact import sha256_json


class ReplyCache:
    """Owns one file of replies, or none: then it lasts as long as the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._replies: dict[str, str] = {}
        self._torn = False
        if path is not None and path.is_file():
            data = path.read_bytes()
            self._replies = dict(_read(data.decode(errors="replace")))
            self._torn = bool(data) and not data.endswith(b"\n")

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> str | None:
        """Return the reply kept under a key, if there is one."""
        return self._replies.get(key)

    def put(self, key: str, text: str) -> None:
        """Keep a reply, in the file at once."""
        self._replies[key] = text
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"key": key, "text": text}) + "\n"
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + line if self._torn else line)
            self._torn = False


def request_key(url: str, body: dict[str, Any]) -> str:
    """Return the hash under which the reply to a request is kept: who was asked, and what."""
    return sha256_json({"url": url, "body": body})


def _read(text: str) -> list[tuple[str, str]]:
    kept: list[tuple[str, str]] = []
    for line in text.split("\n"):
        try:
            record = json.loads(line)
            kept.append((str(record["key"]), str(record["text"])))
        except (ValueError, KeyError, TypeError):
            continue
    return kept
