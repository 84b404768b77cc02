"""Runs one program and its tests under limits; started by `program.py` as a script, with the standard library alone."""

import ctypes
import os
import resource
import sys


def _limit(seconds: float, memory: int) -> None:
    whole = max(1, int(seconds + 0.999))
    for what, most in (
        (resource.RLIMIT_CPU, whole),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _leave_network() -> None:
    """Move into a user and network namespace of its own where the system allows it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(0x10000000 | 0x40000000)  # CLONE_NEWUSER | CLONE_NEWNET


def _no_children() -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))


def main() -> None:
    """Read the word, set the limits, run program and tests, and write the word back at their very end."""
    folder, seconds, memory, writer = sys.argv[1:5]
    word = sys.stdin.buffer.read()
    sys.argv = [""]
    _leave_network()
    _limit(float(seconds), int(memory))
    _no_children()
    space = {"__name__": "program"}
    for name in ("program.py", "tests.py"):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            exec(compile(file.read(), name, "exec"), space)
    os.write(int(writer), word)


if __name__ == "__main__":
    main()
