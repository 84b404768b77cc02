import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from limbeck.errors import RunError
from limbeck.lock import hold

HOLDER = """
import sys, time
from pathlib import Path
from limbeck.lock import hold
with hold(Path(sys.argv[1]), "the still"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def _holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLDER, str(path), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _try(path: Path, *, patience: float = 0.0) -> None:
    with hold(path, "the still", patience=patience):
        pass


def test_who_comes_too_late_is_told_who_holds_the_lock_where_and_since_when(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", "the still"), pytest.raises(RunError) as caught:
        _try(tmp_path / "lock")
    who = rf"process {os.getpid()} on {re.escape(socket.gethostname())}, since 20\d\d-.* UTC"
    assert re.search(rf"another process is writing to the still \({who}\)", str(caught.value))


def test_one_refused_leaves_the_holders_name_for_the_next(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", "the still"):
        for _ in range(2):
            with pytest.raises(RunError, match=f"process {os.getpid()} on"):
                _try(tmp_path / "lock")
    assert (tmp_path / "lock").read_text() == ""


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    holder = _holder(tmp_path / "lock", 60)
    with pytest.raises(RunError, match=f"process {holder.pid} on"):
        _try(tmp_path / "lock")
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=300)
    with hold(tmp_path / "lock", "the still"):
        pass


def test_a_holder_is_waited_for_as_long_as_patience_lasts(tmp_path: Path) -> None:
    holder = _holder(tmp_path / "lock", 1)
    with hold(tmp_path / "lock", "the still", patience=30):
        holder.communicate(timeout=300)
    with hold(tmp_path / "lock", "the still"):
        started = time.monotonic()
        with pytest.raises(RunError):
            _try(tmp_path / "lock", patience=0.3)
        assert time.monotonic() - started >= 0.3


def test_a_name_that_cannot_be_read_is_no_error_of_its_own(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", "the still"):
        (tmp_path / "lock").write_text("{")
        with pytest.raises(RunError, match="has not left its name"):
            _try(tmp_path / "lock")
