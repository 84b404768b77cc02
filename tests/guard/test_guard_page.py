"""docs/guard.md: its five commands run as printed, and its settings are settings."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

from guard.fakeupstream import Asked, Pieces, completion, whole
from guard.guarding import Guard, until, upstream_in_a_thread
from guard.running import hello
from limbeck.guard.config import parse_config

PAGE = (Path(__file__).parents[2] / "docs" / "guard.md").read_text(encoding="utf-8")
(COMMANDS,) = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
(TABLES,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)


async def play(asked: Asked) -> Pieces:
    listed = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
    yield whole(listed if asked.path == "/v1/models" else completion())


def test_its_settings_are_settings() -> None:
    assert parse_config(tomllib.loads(TABLES)).models["large"].starts_thinking


def test_five_commands_lead_from_nothing_to_a_guarded_model_with_two_keys(tmp_path: Path) -> None:
    install, *others, serve = COMMANDS.strip().splitlines()
    assert len(others) == 3
    assert install == "pip install 'limbeck[guard]'"  # what these tests run in
    place = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment = os.environ | place | {"PYTHONUNBUFFERED": "1"}
    said = ""
    for command in others:
        done = subprocess.run(
            ["bash", "-euc", _here(command)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )  # fmt: skip
        said += done.stdout
    keys = re.findall(r"^lk-\S+$", said, flags=re.MULTILINE)
    assert len(keys) == 2
    log = tmp_path / "log"
    with upstream_in_a_thread(play) as fake, log.open("wb") as out:
        command = _here(serve).replace("127.0.0.1:8000", f"127.0.0.1:{fake.port}")
        process = subprocess.Popen(
            ["bash", "-euc", f"exec {command} --port 0 --admin-port 0"], cwd=tmp_path, env=environment, stderr=out
        )  # fmt: skip
        guard = Guard(tmp_path / "guard", 0, process, log)
        try:
            until(lambda: bool(guard.events("listening")))
            guard.port = guard.events("listening")[0]["port"]
            until(guard.is_ready)
            for key in keys:
                until(lambda key=key: guard.ask(key=key, body=hello()) == (200, completion()))
            assert guard.ask(key="lk-other", body=hello())[0] == 401
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _here(command: str) -> str:
    """Run this environment's limbeck, wherever its script is."""
    return command.replace("limbeck guard", f"{sys.executable} -m limbeck guard")
