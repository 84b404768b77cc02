"""A whole guard in processes of its own, in front of a fake upstream in a thread of the test's."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guard.fakeupstream import FakeUpstream, Play, upstream

PATIENCE_S = 30.0
FEW_FILES = ("sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh")
"""Starts a command as a shell does that allows few open files unless it is asked for more."""


@contextmanager
def upstream_in_a_thread(play: Play) -> Generator[FakeUpstream]:
    """Run a fake upstream beside the test."""
    loop = asyncio.new_event_loop()
    started: list[FakeUpstream] = []
    stop = asyncio.Event()

    async def serve() -> None:
        async with upstream(play) as fake:
            started.append(fake)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    until(lambda: bool(started))
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def until(true: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come true")


@dataclass
class Guard:
    """A guard that runs."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the lines that the guard has logged under a name."""
        lines = [
            json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")
        ]
        return [line for line in lines if line["event"] == name]

    def ask(
        self, path: str = "/v1/chat/completions", key: str = "", body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Send one request over a connection of its own."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        asked = urllib.request.Request(self.url + path, body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(asked, timeout=10) as reply:  # noqa: S310
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def children(self) -> list[int]:
        pid = self.process.pid
        return [
            int(one)
            for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        ]

    def is_ready(self) -> bool:
        try:
            # Each connection may meet another worker; so many ask both, as good as surely.
            # The keeper takes longer to start; metrics come from it.
            paths = ("/readyz", "/metrics")
            return all(self.ask(path)[0] == 200 for path in paths for _ in range(10))
        except OSError:
            return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log.read_text(encoding="utf-8")) from None


def limbeck(*arguments: str) -> str:
    """Run a command of the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "limbeck", "guard", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def guarding(folder: Path, upstream_url: str, *names: str, config: str = "") -> Generator[Guard]:
    """Run a guard with accounts of these names."""
    limbeck("init", "--folder", str(folder))
    keys = {
        name: json.loads(limbeck("invite", name, "--json", "--folder", str(folder)))["secret"]
        for name in names
    }
    if config:
        with (folder / "guard.toml").open("a") as file:
            file.write(config)
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*FEW_FILES, sys.executable, "-m", "limbeck", "guard", "serve", "--folder", str(folder), "--upstream", upstream_url, "--port", "0", "--admin-port", "0"],
            stderr=out,
            stdout=out,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        guard = Guard(folder, 0, process, log, keys)
        try:
            until(lambda: bool(guard.events("listening")) or process.poll() is not None)
            guard.port = guard.events("listening")[0]["port"]
            until(guard.is_ready)
            yield guard
        finally:
            if process.poll() is None:
                guard.stop()
