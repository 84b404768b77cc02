"""Runs `limbeck guard fit`, `replay` and `score` as an operator would."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traffic.census import Plan as Census
from traffic.log import write
from traffic.material import Material

from limbeck.errors import GuardError
from limbeck.guard.policy import DEFAULT


@dataclass(frozen=True, slots=True)
class Fitted:
    """What `limbeck guard fit` left."""

    policy: Path
    """The shipped policy with the calibration in it."""
    said: str
    """What the command printed."""
    seconds: float
    lines: int


@dataclass(frozen=True, slots=True)
class Operated:
    """What `limbeck guard replay` and `score` found with the shipped policy."""

    score: dict[str, Any]
    lines: int
    replay_seconds: float


def fit(census: Census, material: Material, folder: Path, rewrite: Any = None) -> Fitted:
    """Write a log, fit on it, and leave a policy that uses the calibration."""
    folder.mkdir(parents=True, exist_ok=True)
    log, truth = folder / "log.jsonl", folder / "truth.csv"
    lines = write(census, material, log, truth, rewrite)
    began = time.perf_counter()
    said = limbeck("guard", "fit", log, "--truth", truth, "--out", folder / "calibration.json")
    seconds = time.perf_counter() - began
    policy = folder / "policy.toml"
    text = DEFAULT.read_text(encoding="utf-8")
    policy.write_text(
        text.replace("[evidence]", '[evidence]\ncalibration = "calibration.json"'), encoding="utf-8"
    )
    log.unlink()
    return Fitted(policy, said, seconds, lines)


def replay_and_score(census: Census, material: Material, fitted: Fitted, folder: Path) -> Operated:
    """Write a log, replay it with a fitted policy, and score the decisions."""
    folder.mkdir(parents=True, exist_ok=True)
    log, truth, out = folder / "log.jsonl", folder / "truth.csv", folder / "decisions.jsonl"
    lines = write(census, material, log, truth)
    began = time.perf_counter()
    limbeck("guard", "replay", log, "--policy", fitted.policy, "--out", out)
    seconds = time.perf_counter() - began
    score = json.loads(limbeck("guard", "score", log, out, "--truth", truth).splitlines()[-1])
    log.unlink()
    out.unlink()
    return Operated(score, lines, seconds)


def limbeck(*arguments: object) -> str:
    """Run the command line and return what it printed.

    Raises:
        GuardError: It failed; with what it said.
    """
    line: Sequence[str] = [sys.executable, "-m", "limbeck", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise GuardError(
            f"`limbeck {' '.join(map(str, arguments))}` failed: {done.stderr.strip()[-400:]}"
        )
    return done.stdout
