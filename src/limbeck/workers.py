"""Processes that work side by side and count aloud, one line of output for each thing done."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from limbeck.errors import RunError
from limbeck.launch import alone

DONE = "done"
"""What a worker prints, followed by a number, for every few things done."""
SENTENCE = "limbeck: "
"""How a worker's own last sentence begins on standard error."""


class WorkerError(RunError):
    """A worker that failed.

    Attributes:
        sentence: What it said was wrong, or None where it ended without a word of its own.
        last: The last line that anything in it wrote on standard error, or its exit code.
    """

    def __init__(self, who: str, sentence: str | None, last: str) -> None:
        super().__init__(f"{who} failed: {sentence or last}")
        self.sentence = sentence
        self.last = last


def run_workers(
    commands: Sequence[Sequence[str]],
    heard: Callable[[int], None],
    *,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run `python -m` with each command's words side by side, and wait for all of them.

    The cores are shared out evenly. When one worker fails or the caller is interrupted, the others are
    stopped; a caller that is killed outright leaves workers that stop at the next line they print.

    Args:
        commands: Module name and arguments of each worker.
        heard: Called with the number in every `done N` line.
        environment: Variables that the workers get beside this process's own.

    Raises:
        WorkerError: A worker failed.
    """
    threads = str(max(1, (os.cpu_count() or 1) // len(commands)))
    theirs = alone(os.environ) | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    theirs |= environment or {}
    lock = threading.Lock()
    workers = [
        subprocess.Popen(  # noqa: S603 - our own interpreter and our own modules
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=theirs,
        )
        for command in commands
    ]
    said: list[list[str]] = [[] for _ in workers]

    def listen(worker: subprocess.Popen[str]) -> None:
        for line in worker.stdout or ():
            word, _, number = line.partition(" ")
            if word == DONE:
                with lock:
                    heard(int(number))

    def collect(worker: subprocess.Popen[str], lines: list[str]) -> None:
        lines.extend(worker.stderr or ())

    listeners = [threading.Thread(target=listen, args=(w,)) for w in workers]
    listeners += [
        threading.Thread(target=collect, args=pair) for pair in zip(workers, said, strict=True)
    ]
    try:
        for listener in listeners:
            listener.start()
        failed = _wait(workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        for listener in listeners:
            listener.join()
        for worker in workers:
            for pipe in (worker.stdout, worker.stderr):
                if pipe is not None:
                    pipe.close()
    if failed is not None:
        raise _failure(f"worker {failed + 1} of {len(workers)}", workers[failed], said[failed])


def _failure(who: str, worker: subprocess.Popen[str], lines: Sequence[str]) -> WorkerError:
    spoken = [line.strip() for line in lines if line.strip()]
    own = [line.removeprefix(SENTENCE) for line in spoken if line.startswith(SENTENCE)]
    last = spoken[-1] if spoken else f"exit code {worker.returncode}"
    return WorkerError(who, own[-1] if own else None, last)


def _wait(workers: Sequence[subprocess.Popen[str]]) -> int | None:
    """Wait until all are done, or return the number of the first that failed."""
    waiting = dict(enumerate(workers))
    while waiting:
        for number, worker in list(waiting.items()):
            try:
                code = worker.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
            del waiting[number]
            if code:
                return number
    return None
