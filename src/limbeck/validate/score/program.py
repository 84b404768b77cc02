"""Whether a program that a model wrote passes its tests, in a process of its own with limits.

The process has a fresh folder, an empty environment, no standard input, and limits on processor time, memory, file
sizes and processes; on Linux it also tries to leave the network (a user and network namespace of its own), which
some systems refuse. That keeps clumsy programs from doing harm. It is no wall against a hostile one: score models
that you distrust inside a container or a virtual machine.
"""

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_CELL = Path(__file__).with_name("cell.py")
MEMORY_BYTES = 1 << 30
"""Address space of the program."""
_SPARE_S = 2.0
"""Wall time beyond the processor time, for a program that sleeps."""


def program(text: str, tests: str, *, timeout_s: float) -> float:
    """Return 1 where the program in an answer passes its tests, else 0.

    The tests run after the program in its name space, to their last line; leaving early is no success.

    Args:
        text: What the model wrote; the first fenced block counts, or everything where there is none.
        tests: Python that raises where the program is wrong.
        timeout_s: Seconds of processor time.
    """
    return float(run_tests(source(text), tests, timeout_s=timeout_s))


def source(text: str) -> str:
    """Return the program in an answer."""
    fenced = _FENCE.search(text)
    return fenced.group(1) if fenced else text


def run_tests(code: str, tests: str, *, timeout_s: float) -> bool:
    """Run a program and its tests in a process of their own, and tell whether they came to their end.

    Args:
        code: The program.
        tests: Python that runs after it.
        timeout_s: Seconds of processor time.
    """
    # The word that stands for success is not in the folder, and reaches the process through a pipe.
    word = secrets.token_hex(16)
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory(prefix="limbeck-cell-") as folder:
        (Path(folder) / "program.py").write_text(code, encoding="utf-8", errors="replace")
        (Path(folder) / "tests.py").write_text(tests, encoding="utf-8", errors="replace")
        process = subprocess.Popen(  # noqa: S603 - running what a model wrote is the task
            [
                *(sys.executable, "-I", "-S", str(_CELL), folder),
                *(str(timeout_s), str(MEMORY_BYTES), str(writer)),
            ],
            cwd=folder,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writer,),
            start_new_session=True,
        )
        os.close(writer)
        try:
            process.communicate(word.encode(), timeout=timeout_s + _SPARE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end(process)
        with os.fdopen(reader, "rb") as answer:
            return answer.read(len(word) + 1) == word.encode()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process with everything that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
