"""Answers that were received, in a file that only grows: asked once, paid once.

Each line is a JSON object: `ask` (hash of the request), `answer`, and `sha256` (of the answer). A line is written and synced
before anybody learns of its answer. A last line that a crash cut off is taken away when the file is opened; any
other line that does not hold together is an error.
"""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from limbeck.artefact import sha256_json
from limbeck.chat import Choice, Completion
from limbeck.errors import TeacherError


class Answers:
    """Owns the file; keeps where each answer lies, not the answers."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            TeacherError: A line is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        self.known: dict[str, tuple[int | None, int | None]] = {}
        """Hash of each request answered so far, with prompt and completion tokens."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._end = self._read()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        """Return the answers."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        os.close(self._file)

    def __len__(self) -> int:
        """Return how many requests were answered."""
        return len(self._places)

    def get(self, ask_sha256: str) -> Completion | None:
        """Return the answer to a request, or None where there is none yet."""
        place = self._places.get(ask_sha256)
        if place is None:
            return None
        return completion_of(json.loads(os.pread(self._file, place[1], place[0]))["answer"])

    def append(self, ask_sha256: str, completion: Completion) -> None:
        """Write an answer; when this returns, it survives a crash.

        Raises:
            OSError: A full disk, say; nothing is added.
        """
        answer = completion_json(completion)
        line = {"ask": ask_sha256, "answer": answer, "sha256": sha256_json(answer)}
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        try:
            self._write(data)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._note(ask_sha256, completion, self._end, len(data))
        self._end += len(data)

    def _write(self, data: bytes) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._file, data[done:], self._end + done)
        os.fsync(self._file)

    def _note(self, ask_sha256: str, completion: Completion, start: int, length: int) -> None:
        self._places[ask_sha256] = (start, length)
        self.known[ask_sha256] = (completion.prompt_tokens, completion.completion_tokens)

    def _read(self) -> int:
        """Learn where every answer lies, and return where the next one goes."""
        start = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, start)  # a crash cut it off
                    break
                ask_sha256, completion = self._check(line, number)
                self._note(ask_sha256, completion, start, len(line))
                start += len(line)
        return start

    def _check(self, line: bytes, number: int) -> tuple[str, Completion]:
        try:
            value = json.loads(line)
            if sha256_json(value["answer"]) == value["sha256"]:
                return str(value["ask"]), completion_of(value["answer"])
        except (ValueError, KeyError, TypeError, UnicodeDecodeError):
            pass
        raise TeacherError(
            f"{self._path} line {number} is damaged; take that line out, and its request is sent again"
        )


def completion_json(completion: Completion) -> dict[str, Any]:
    """Return an answer as JSON values; bytes become the characters of the same numbers."""
    value: dict[str, Any] = {
        "text": completion.text,
        "finish": completion.finish,
        "model": completion.model,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
    }
    if completion.choices is not None:
        value["choices"] = [
            [_text(c.token), c.logprob, [[_text(t), p] for t, p in c.top]]
            for c in completion.choices
        ]
    if completion.prompt is not None:
        value["prompt"] = [[list(entry) for entry in place] for place in completion.prompt]
    return value


def completion_of(value: dict[str, Any]) -> Completion:
    """Return the answer that `completion_json` wrote."""
    choices, prompt = value.get("choices"), value.get("prompt")
    return Completion(
        text=value["text"],
        finish=value["finish"],
        model=value["model"],
        prompt_tokens=value["prompt_tokens"],
        completion_tokens=value["completion_tokens"],
        choices=None
        if choices is None
        else tuple(
            Choice(_raw(token), logprob, tuple((_raw(t), p) for t, p in top))
            for token, logprob, top in choices
        ),
        prompt=None
        if prompt is None
        else tuple(tuple((int(i), float(p), str(t)) for i, p, t in place) for place in prompt),
    )


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _raw(text: str) -> bytes:
    return text.encode("latin-1")
