"""Runs `limbeck guard suite`, `fit`, `replay` and `score` as an operator would."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectors.limbeck_watch import Limbeck
from traffic.census import Plan as Census
from traffic.log import write
from traffic.material import Material

from limbeck.errors import GuardError
from limbeck.guard.evidence.calibration import load
from limbeck.guard.policy import DEFAULT
from limbeck.guard.watch import Watch

KNOWN_SUITES = ("mmlu", "arc-easy", "gsm8k", "piqa")
"""Suites whose items the operator has: some benchmark families of each fold; the others are unknown to him."""
_SECRET = b"seed 0"
"""What `--seed 0`, the default of the commands, makes the key of all hashes."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What `limbeck guard fit` left."""

    policy: Path
    """The shipped policy with calibration and suites in it, and the alpha that the accounts support."""
    calibration: Path
    alpha: float
    seconds: float
    lines: int


@dataclass(frozen=True, slots=True)
class Operated:
    """What `limbeck guard replay` and `score` found on a mixed log."""

    score: dict[str, Any]
    lines: int
    replay_seconds: float


def fit(
    census: Census,
    material: Material,
    folder: Path,
    *,
    alpha: float,
    rewrite: Callable[[str], str] | None = None,
) -> Fitted:
    """Write a log, fit on it, and leave a policy that uses what was fitted."""
    folder.mkdir(parents=True, exist_ok=True)
    log, truth = folder / "log.jsonl", folder / "truth.csv"
    calibration, policy = folder / "calibration.json", folder / "policy.toml"
    lines = write(census, material, log, truth, rewrite)
    sketches = [sketch(name, material, folder) for name in KNOWN_SUITES]
    suites = [part for path in sketches for part in ("--suite", path)]
    began = time.perf_counter()
    limbeck("guard", "fit", log, "--truth", truth, "--out", calibration, "--alpha", alpha, *suites)
    seconds = time.perf_counter() - began
    policy.write_text(_policy(alpha), encoding="utf-8")
    log.unlink()
    return Fitted(policy, calibration, alpha, seconds, lines)


def sketch(name: str, material: Material, folder: Path) -> Path:
    """Sketch a suite that the operator has the items of."""
    items, out = folder / f"{name}.jsonl", folder / f"{name}.suite"
    lines = (json.dumps({"text": text}) + "\n" for text in material.prompts(name))
    items.write_text("".join(lines), encoding="utf-8")
    limbeck("guard", "suite", "build", items, "--out", out, "--name", name)
    items.unlink()
    return out


def _policy(alpha: float) -> str:
    """The shipped policy, changed where a calibration comes in."""
    text = DEFAULT.read_text(encoding="utf-8")
    files = ", ".join(json.dumps(f"{name}.suite") for name in KNOWN_SUITES)
    kept = re.sub(r"(?m)^alpha = .*$", f'alpha = {alpha}\ncalibration = "calibration.json"', text)
    return f"suites = [{files}]\n\n{kept}"


def open_limbeck(fitted: Fitted) -> Limbeck:
    """Return the watch as fitted, with an empty memory."""
    return Limbeck(Watch.open(fitted.policy, secret=_SECRET), load(fitted.calibration))


def replay_and_score(census: Census, material: Material, fitted: Fitted, folder: Path) -> Operated:
    """Write a log, replay it with a fitted policy, and score the decisions."""
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
        said = done.stderr.strip()[-600:]
        raise GuardError(f"`limbeck {' '.join(map(str, arguments[:2]))}` failed: {said}")
    return done.stdout
