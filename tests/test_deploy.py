"""What lies in deploy/ is what this version of the command understands, and starts."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbservers import free_port
from guard.fakeupstream import Asked, Pieces, completion, whole
from guard.guarding import limbeck, until, upstream_in_a_thread

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
INSTALLED = "/opt/limbeck/bin/"
MODELS = b'{"object":"list","data":[{"id":"m","object":"model"}]}'


async def play(asked: Asked) -> Pieces:
    yield whole(MODELS if asked.path == "/v1/models" else completion())


@pytest.fixture
def upstream_url() -> Generator[str]:
    with upstream_in_a_thread(play) as fake:
        yield f"http://127.0.0.1:{fake.port}"


def lines(name: str, word: str) -> list[str]:
    """Return what follows a word at the beginning of a file's lines."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    return [line.removeprefix(word) for line in text.splitlines() if line.startswith(word)]


def here(command: str) -> str:
    """Return a command with the programs of this environment instead of the installed ones."""
    python = shlex.quote(sys.executable)
    command = command.replace(f"{INSTALLED}python", python)
    return command.replace(f"{INSTALLED}limbeck", f"{python} -m limbeck")


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def started(command: list[str], port: int, cwd: Path) -> Generator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, cwd=cwd, env=os.environ | {"HOME": str(cwd)})
    try:
        until(lambda: is_ready(port) or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "limbeck-guard.service").read_text(encoding="utf-8")
    unit = tmp_path / "limbeck-guard.service"
    unit.write_text(text.replace(f"{INSTALLED}limbeck", f"{sys.executable} -m limbeck"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "limbeck-guard" in line]
    assert complaints == []


def test_the_units_command_serves_and_stops(tmp_path: Path, upstream_url: str) -> None:
    (command,) = lines("limbeck-guard.service", "ExecStart=")
    folder, port = tmp_path / "guard", free_port()
    limbeck("init", "--folder", str(folder))
    with (folder / "guard.toml").open("a", encoding="utf-8") as file:
        file.write(f'[upstream]\nurl = "{upstream_url}"\n[server]\nport = {port}\n')
    command = here(command).replace("/var/lib/limbeck/guard", str(folder))
    with started(shlex.split(command), port, tmp_path):
        pass


def test_the_container_starts_in_an_empty_volume_and_its_health_check_says_so(
    tmp_path: Path, upstream_url: str
) -> None:
    (entry,) = lines("Containerfile", "ENTRYPOINT ")
    shell, dash_c, script, name = json.loads(entry)
    port = free_port()
    given = ["--upstream", upstream_url, "--host", "127.0.0.1", "--port", str(port)]
    (check,) = lines("Containerfile", "HEALTHCHECK ")
    asks = json.loads(check[check.index("[") :])
    asks = [sys.executable, *asks[1:-1], asks[-1].replace(":8080/", f":{port}/")]
    assert subprocess.run(asks, capture_output=True, check=False).returncode != 0
    with started([shell, dash_c, here(script), name, *given], port, tmp_path):
        assert subprocess.run(asks, capture_output=True, check=False).returncode == 0
