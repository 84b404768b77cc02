"""The on-policy benchmark runs on the tiny teacher and keeps the contract of its last line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-baselines" / "bin" / "python"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _run(teacher: Path, *options: str) -> dict[str, Any]:
    sizes = ["--layers", "2", "--prompts", "8", "--max-new-tokens", "16", "--seed", "3"]
    script = str(ROOT / "benchmarks" / "onpolicy.py")
    done = subprocess.run(
        [sys.executable, script, "--quick", "--teacher", str(teacher), *sizes, *options],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "quick: rough" in done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["quick"] is True
    assert found["seed"] == 3
    return found


def test_without_trl_both_parts_are_measured_and_it_says_how_to_get_it(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    found = _run(tiny_teacher_folder, "--baselines", str(tmp_path / "no-python"))
    assert found["tokens_per_s_over_trl"] is None
    assert "make baselines" in found["trl_missing"]
    assert set(found["arms"]) == {"ours", "ahead"}
    for arm in found["arms"].values():
        assert 0 < arm["tokens_per_step"] <= 8 * 16
        assert arm["tokens_per_s"] == pytest.approx(
            arm["tokens_per_step"] / arm["seconds_per_step"]
        )
    assert set(found["kl"]["heldout"]) == {"on", "off", "half", "start"}
    for name in ("on", "off"):
        mean, low, high = found["kl"]["heldout"][name]
        assert low <= mean == found[f"kl_{name}"] <= high
    written = {name: figures["answers"] for name, figures in found["kl"]["training"].items()}
    assert written["off"] == 0 < written["half"] < written["on"]
    assert written["on"] == 4 * 8
    assert found["kl_on"] != found["kl_off"] != found["kl"]["heldout"]["start"][0]


def test_the_trainer_reads_the_same_prompts_and_takes_the_same_step(
    tiny_teacher_folder: Path,
) -> None:
    if not PYTHON.is_file():
        pytest.skip("TRL has an environment of its own: make baselines")
    found = _run(tiny_teacher_folder, "--part", "speed", "--precision", "float32")
    assert set(found["arms"]) == {"ours", "ahead", "trl"}
    low, high = found["tokens_per_s_over_trl_range"]
    assert 0 < low <= found["tokens_per_s_over_trl"] <= high
    assert found["ahead_tokens_per_s_over_trl"] > 0
    # Other draws of one student's text, one loss: 128 positions each.
    first = [arm["first_loss"] for arm in found["arms"].values()]
    assert max(first) < 1.3 * min(first)


def test_too_many_prompts_are_refused_in_one_sentence(tiny_teacher_folder: Path) -> None:
    script = str(ROOT / "benchmarks" / "onpolicy.py")
    done = subprocess.run(
        [
            *(sys.executable, script, "--quick", "--teacher", str(tiny_teacher_folder)),
            *("--layers", "2", "--train-prompts", "6400"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "6408 to be trained on" in done.stderr
