"""Arms that take turns: processes that each hold one arm, of which only one computes at a time."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import IO, Any, Self

from onpolicy_setting import OnPolicySetting
from setting import Setting

_ARM = Path(__file__).with_name("arm.py")


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of one arm."""

    seconds: float
    peak_bytes: int | None
    """Highest RSS during the step; None where the system does not say."""
    loss: float | None
    positions: int | None = None
    """Loss positions of the step, where they are counted."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an arm says once it is loaded; `arm.py` defines the terms."""

    floor_bytes: int | None
    teacher_bytes: int
    decode_seconds: float
    threads: int


class Arm:
    """Owns the process of one arm."""

    def __init__(
        self,
        name: str,
        setting: Setting | OnPolicySetting,
        python: str = sys.executable,
        script: Path = _ARM,
    ) -> None:
        """Start the process of `script` and wait until it is loaded."""
        self.name = name
        self._errors = setting.path / f"{name}.log"
        with self._errors.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [python, str(script), name, setting.folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            )
        self.facts = Facts(**self._read())

    def step(self) -> Turn:
        """Let the arm take one step."""
        into = _pipe(self._process.stdin)
        into.write("go\n")
        into.flush()
        return Turn(**self._read())

    def __enter__(self) -> Self:
        """Return the arm."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process: an arm that reads the end of its input stops."""
        _pipe(self._process.stdin).close()
        _pipe(self._process.stdout).close()
        if kind is not None:
            self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            said = self._errors.read_text(encoding="utf-8").strip().splitlines()
            raise SystemExit(f"arm {self.name} ended early: " + "\n".join(said[-12:]))
        return json.loads(line)


def interleave(arms: Sequence[Arm], *, warm_up: int, rounds: int) -> dict[str, list[Turn]]:
    """Let every arm take `warm_up` steps that do not count, then `rounds` that do, one by one.

    Each round starts with another arm, so that none always follows the same one.

    Returns:
        For each arm its turns, the warm-up's first.
    """
    turns: dict[str, list[Turn]] = {arm.name: [] for arm in arms}
    for number in range(warm_up + rounds):
        first = number % len(arms)
        for arm in (*arms[first:], *arms[:first]):
            turns[arm.name].append(arm.step())
    return turns


def ratio(over: Sequence[float], under: Sequence[float]) -> tuple[float, float, float]:
    """Return median, lowest and highest of the ratios of turns that were taken in the same round."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return median(ratios), min(ratios), max(ratios)


def extra(facts: Facts, turns: Sequence[Turn]) -> int | None:
    """Return the highest RSS of some steps beyond what every arm must hold."""
    peaks = [turn.peak_bytes for turn in turns if turn.peak_bytes is not None]
    if facts.floor_bytes is None or not peaks:
        return None
    return max(peaks) - facts.floor_bytes


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the arm has no pipe")
    return stream
