import subprocess
import sys
from pathlib import Path

import pytest


def _limbeck(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "limbeck", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["distill", "no.toml"], 2, "recipe no.toml does not exist"),
        (["distill", "bad.toml"], 2, "did you mean epochs?"),
        (["distill", "bad.toml", "--set", "train.epoch"], 2, "section.key=value"),
        (["report", "."], 1, "holds no Limbeck run"),
        (["chat", "nowhere", "--prompt", "x"], 1, "nowhere does not exist"),
        (["store", "info", "."], 1, "store"),
    ],
)
def test_bad_input_gets_one_sentence_and_no_traceback(
    tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    (tmp_path / "bad.toml").write_text("[train]\nepoch = 1\n")
    done = _limbeck(*words, folder=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.startswith("limbeck: ")
    assert "Traceback" not in done.stderr + done.stdout


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom limbeck.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'pydantic'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
