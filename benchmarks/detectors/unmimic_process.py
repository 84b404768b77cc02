"""Owns the process in which unmimic's guard runs, since its dependencies are not Limbeck's."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_WORKER = Path(__file__).with_name("unmimic_worker.py")


class UnmimicProcess:
    """Scores texts with unmimic in its own environment; made by `make baselines-guard`."""

    def __init__(self, python: Path, benign: Sequence[str]) -> None:
        """Start it and let it learn normal prompts."""
        self._process = subprocess.Popen(
            [str(python), str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._ask(list(benign))

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Return the score of each text: from 0 to 1, and 1 more where it would be blocked."""
        return self._ask(list(texts))

    def _ask(self, what: list[str]) -> list[float]:
        into, out = _pipe(self._process.stdin), _pipe(self._process.stdout)
        into.write(json.dumps(what) + "\n")
        into.flush()
        line = out.readline()
        if not line:
            raise RuntimeError(f"unmimic's process ended with code {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Self:
        """Return the process."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        _pipe(self._process.stdin).close()
        self._process.wait(timeout=30)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("unmimic's process has no pipe")
    return pipe
