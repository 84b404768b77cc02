"""Runs one program and its tests under limits; started by `program.py` as a script, with the standard library alone."""

import ctypes
import importlib
import os
import resource
import sys

# Imported while files can still be read: root's own Python may be closed to nobody.
_OFFERED = (
    *(
        "abc",
        "bisect",
        "collections",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
    ),
    *("functools", "heapq", "itertools", "json", "math", "operator", "random", "re", "statistics"),
    *("string", "textwrap", "typing", "_strptime"),
)
_NOBODY = 65534
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def _limit(seconds: float, memory: int) -> None:
    whole = max(1, int(seconds + 0.999))
    for what, most in (
        (resource.RLIMIT_CPU, whole),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _leave_root() -> None:
    """Become nobody: limits on processes do not bind root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)


def _leave_network() -> None:
    """Move into a user and network namespace of its own where the system allows it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def main() -> None:
    """Read the word, set the limits, run program and tests, and write the word back at their very end."""
    folder, seconds, memory, writer = sys.argv[1:5]
    word = sys.stdin.buffer.read()
    sys.argv = [""]
    parts: list[tuple[str, str]] = []
    for name in ("program.py", "tests.py"):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            parts.append((name, file.read()))
    for module in _OFFERED:
        importlib.import_module(module)
    _leave_root()
    _leave_network()
    _limit(float(seconds), int(memory))
    space = {"__name__": "program"}
    for name, text in parts:
        exec(compile(text, name, "exec"), space)  # noqa: S102 - running it is the task
    os.write(int(writer), word)


if __name__ == "__main__":
    main()
