"""Every benchmark here runs on the tiny teacher and keeps the contract of its last line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARMS = {"ours", "cross_entropy", "online"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def sizes(tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that make a benchmark small: the tiny teacher and text of our own."""
    text = tmp_path_factory.mktemp("text") / "prose.txt"
    line = "Copper kettles shine on shelf {n}; the still is warm and drips slowly, drop by drop.\n"
    text.write_text("".join(line.format(n=n) for n in range(200)), encoding="utf-8")
    return [
        *("--quick", "--seed", "3", "--teacher", str(tiny_teacher_folder), "--text", str(text)),
        *("--layers", "2", "--rows", "2", "--length", "32", "--rounds", "2"),
    ]


def _last_line(script: str, options: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *options],
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


def _check_steps(found: dict[str, Any], names: set[str]) -> None:
    assert set(found["arms"]) == names
    for arm in found["arms"].values():
        assert arm["seconds"] > 0
        assert arm["tokens_per_s"] * arm["seconds"] == pytest.approx(found["positions_per_step"])
        if sys.platform == "linux":
            assert arm["extra_peak_bytes"] > 0
    assert found["positions_per_step"] == 2 * 31
    assert found["time_over_cross_entropy"] > 0
    assert found["extra_peak_bytes"] == found["arms"]["ours"]["extra_peak_bytes"]


def test_steps_are_measured_without_trl_and_say_how_to_get_it(
    sizes: list[str], tmp_path: Path
) -> None:
    found = _last_line("step.py", [*sizes, "--baselines", str(tmp_path / "no-python")])
    _check_steps(found, ARMS)
    assert found["tokens_per_s_over_gkd"] is None
    assert found["gkd_extra_peak_bytes"] is None
    assert "make baselines" in found["gkd_missing"]


def test_gkd_and_the_dense_step_start_from_one_loss(sizes: list[str]) -> None:
    python = ROOT / ".venv-baselines" / "bin" / "python"
    if not python.is_file():
        pytest.skip("TRL has an environment of its own: make baselines")
    found = _last_line("step.py", [*sizes, "--precision", "float32"])
    _check_steps(found, ARMS | {"gkd"})
    assert found["tokens_per_s_over_gkd"] > 0
    dense = found["arms"]["online"]["first_loss"]
    assert found["arms"]["gkd"]["first_loss"] == pytest.approx(dense, rel=1e-4)
    # Sparse targets estimate the same divergence, from a few entries a position.
    assert found["arms"]["ours"]["first_loss"] == pytest.approx(dense, rel=0.5)


def test_totals_follow_from_the_rates_and_name_where_offline_loses(sizes: list[str]) -> None:
    found = _last_line("breakeven.py", sizes)
    rate, positions = found["seconds_per_position"], found["positions"]
    assert [(r["epochs"], r["students"]) for r in found["runs"]] == [
        (epochs, students) for epochs in (1, 2, 4) for students in (1, 3)
    ]
    for run in found["runs"]:
        epochs, students = run["epochs"], run["students"]
        student_s = rate["decode"] + epochs * rate["ours"]
        assert run["offline_s"] == pytest.approx(
            positions * (rate["capture"] + students * student_s)
        )
        assert run["online_s"] == pytest.approx(positions * students * epochs * rate["online"])
        loses = {"epochs": epochs, "students": students} in found["offline_loses"]
        assert loses == (run["offline_s"] > run["online_s"])


@pytest.mark.parametrize("script", ["step.py", "breakeven.py"])
def test_a_text_that_is_too_short_is_refused_in_one_sentence(
    script: str, sizes: list[str], tmp_path: Path
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Too short.", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *sizes, "--text", str(short)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "give a longer --text" in done.stderr


def test_tokenizers_are_crossed_three_ways(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    options = ["--quick", "--seed", "3", "--teacher", str(tiny_teacher_folder)]
    options += ["--out", str(tmp_path / "across"), "--layers", "2", "--vocabulary", "400"]
    found = _last_line("across.py", options)
    assert set(found["arms"]) == {
        *("teacher", "undistilled", "cross_entropy"),
        *("chunks", "chunks_and_cross_entropy", "uld"),
    }
    assert all(arm["bits_per_byte"] > 0 for arm in found["arms"].values())
    assert 0 < found["alignment"]["coincident_share"] <= 1
    assert found["student_vocabulary"] <= 400


def test_capture_is_timed_beside_a_bare_forward_in_both_precisions(sizes: list[str]) -> None:
    found = _last_line("capture.py", [*sizes[:7], "--documents", "6", "--threads", "1"])
    assert set(found["capture_over_bare"]) == {"bfloat16", "float32"}
    assert all(ratio > 0 for ratio in found["capture_over_bare"].values())
    assert 0 <= found["bfloat16_kl"] < 0.1
    assert found["lengths"]["longest"] <= 512
