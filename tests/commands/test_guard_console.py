import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from limbeck.guard.state.home import init_state


def test_the_console_is_served_on_loopback_and_ends_in_good_order(tmp_path: Path) -> None:
    init_state(tmp_path).close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "limbeck", "guard", "console", "--port", str(port)]
    server = subprocess.Popen(
        command,
        env=os.environ | {"LIMBECK_GUARD_FOLDER": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        page = _fetched(f"http://127.0.0.1:{port}/console")
        assert "Admin key" in page
    finally:
        server.send_signal(signal.SIGINT)
        output = server.communicate(timeout=20)[0]
    assert output == f"console: http://127.0.0.1:{port}/console\n"


def _fetched(url: str) -> str:
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < until, "the console did not start"
            time.sleep(0.1)
