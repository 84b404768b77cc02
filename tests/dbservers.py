"""Real PostgreSQL and Redis servers on loopback, started from the machine's binaries; what several test folders share."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

_PATIENCE_S = 30.0
_SAFE_FOLDERS = "/usr/lib/postgresql/*/bin"


def binary(name: str) -> str:
    """Find a program on the PATH or where Debian hides it; skip the test if it is not there."""
    found = shutil.which(name) or next(
        (str(path / name) for path in sorted(Path("/").glob(_SAFE_FOLDERS[1:]), reverse=True)), None
    )
    if found is None or not Path(found).exists():
        pytest.skip(f"{name} is not installed (Debian: postgresql, redis-server)")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    """Owns a cluster in a folder and its server; `kill` and `start` as often as a test likes."""

    def __init__(self) -> None:
        # Not under pytest's folders: those are for their owner only, and the server may be somebody else.
        folder = Path(tempfile.mkdtemp(prefix="limbeck-postgres-"))
        self._folder, self._port = folder, free_port()
        self._as = _somebody_else(folder)
        initdb = [binary("initdb"), "-D", str(folder / "data"), "-U", "guard", "-A", "trust"]
        self._run([*initdb, "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"])
        self.url = f"postgresql://guard@127.0.0.1:{self._port}/postgres"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["-D", str(self._folder / "data"), "-p", str(self._port), "-k", str(self._folder)]
        # Killed servers, not machines: what the system has is not lost, so the disk is not waited for.
        options += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        command = [*self._as, binary("postgres"), *options]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, start_new_session=True
            )
        _wait(self._answers, "postgres")

    def kill(self) -> None:
        """End the server as a crash does; its children notice."""
        assert self._server is not None
        pid_file = self._folder / "data" / "postmaster.pid"
        os.kill(int(pid_file.read_text("ascii").split()[0]), signal.SIGKILL)
        self._server.wait()
        pid_file.unlink(missing_ok=True)
        _wait(lambda: not _listens(self._port), "the end of postgres")
        time.sleep(0.2)  # its children leave the shared memory

    def stop(self) -> None:
        if self._server is not None and self._server.poll() is None:
            os.killpg(self._server.pid, signal.SIGQUIT)
            self._server.wait(_PATIENCE_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, command: Sequence[str]) -> None:
        done = subprocess.run(
            [*self._as, *command], capture_output=True, text=True, cwd=self._folder, check=False
        )
        assert done.returncode == 0, done.stderr


class Redis:
    """Owns a Redis server in a folder that writes every change to its log before it answers."""

    def __init__(self, folder: Path, *, remembers: bool = True) -> None:
        self._folder, self._port = folder, free_port()
        self._appends = "yes" if remembers else "no"
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        log = ["--appendonly", self._appends, "--appendfsync", "always", "--save", ""]
        self._server = subprocess.Popen(
            [binary("redis-server"), *options, *log], stdout=subprocess.DEVNULL
        )
        _wait(self._answers, "redis")

    def kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def stop(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self.kill()

    def _answers(self) -> bool:
        import redis

        client = redis.Redis.from_url(self.url)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def _somebody_else(folder: Path) -> list[str]:
    """Return what runs a command as a user that postgres accepts; it refuses root."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return [binary("setpriv"), "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(ready: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not ready():
        assert time.monotonic() < until, f"waited {_PATIENCE_S:g} s for {what}"
        time.sleep(0.05)
