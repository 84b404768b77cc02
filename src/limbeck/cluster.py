"""A Ray cluster to work on: how it is named, how it is joined, and what it means when it is lost.

Ray ends a program that loses the head, without a word to Python. So the program that talks to Ray is a
process of its own, and this module's other half, in the process that started it, says what happened.
"""

import contextlib
import importlib.util
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.errors import MissingDependencyError, RecipeError, RunError
from limbeck.workers import SENTENCE, WorkerError, run_workers

LOCAL = "local"
AUTO = "auto"
_ANSWER_SECONDS = 5.0
_JOIN_SECONDS = 60.0
_STORE_BYTES = 128 << 20
"""Ray's shared memory on this machine: only part numbers pass through it."""
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes a cluster of this machine alone bind to the loopback interface, which Ray does by itself elsewhere."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster, and what a worker takes of it.

    Raises:
        RecipeError: An address of another form, or fewer than no accelerators.
        MissingDependencyError: Ray is not installed.
    """

    address: str
    """`local` starts one on this machine, `auto` finds the one this machine belongs to, else HOST:PORT of its head."""
    accelerators: float | None = None
    """Of each worker; None means one where the cluster has any."""

    def __post_init__(self) -> None:
        if self.address not in {LOCAL, AUTO} and _endpoint(self.address) is None:
            raise RecipeError(
                f"--ray must be {LOCAL}, {AUTO} or the head's HOST:PORT, such as 10.0.0.1:6379; got {self.address}"
            )
        if self.accelerators is not None and self.accelerators < 0:
            raise RecipeError(f"--ray-accelerators must be at least 0, got {self.accelerators:g}")
        if importlib.util.find_spec("ray") is None:
            raise MissingDependencyError("--ray needs Ray: pip install 'limbeck[ray]'")


def _endpoint(address: str) -> tuple[str, int] | None:
    host, colon, port = address.rpartition(":")
    return (host, int(port)) if colon and host and "/" not in host and port.isdigit() else None


# in the process that started the work


def run_on(
    cluster: Cluster, command: Sequence[str], workers: int, heard: Callable[[int], None]
) -> None:
    """Run `python -m` with a command's words, followed by how to join the cluster, and wait for its end.

    Args:
        cluster: Where.
        command: A module that works on the cluster, and its arguments.
        workers: How many it may use at once.
        heard: Called with the number in every `done N` line that it prints.

    Raises:
        RunError: The cluster does not answer or was lost, or the work failed.
    """
    _check_answers(cluster)
    accelerators = "" if cluster.accelerators is None else f"{cluster.accelerators:g}"
    words = [*command, cluster.address, accelerators, str(workers)]
    try:
        run_workers([words], heard, environment=environment_of(cluster, workers))
    except WorkerError as error:
        if error.sentence is not None:
            raise RunError(error.sentence) from None
        raise RunError(
            f"the Ray cluster {cluster.address} was lost (its last words: {error.last[:300]}); "
            "what was finished is kept, go on with --resume"
        ) from None


def _check_answers(cluster: Cluster) -> None:
    endpoint = _endpoint(cluster.address)
    if endpoint is None:
        return
    try:
        socket.create_connection(endpoint, timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise RunError(
            f"no Ray head answers at {cluster.address} ({error.strerror or error}); start one with "
            f"`ray start --head`, or capture with --ray {LOCAL}"
        ) from None


def environment_of(cluster: Cluster, workers: int) -> Mapping[str, str]:
    """Return the variables that Ray reads in the process that talks to it."""
    if cluster.address != LOCAL:
        return _ENVIRONMENT
    threads = str(_cores_each(workers))
    return _ENVIRONMENT | _LOOPBACK | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def _cores_each(workers: int) -> int:
    return max(1, (os.cpu_count() or 1) // workers)


# in the process that talks to Ray


@contextlib.contextmanager
def joined(address: str) -> Generator[None]:
    """Join a cluster, or start one of this machine alone, for as long as the block runs.

    Raises:
        RunError: There is none, or it let nobody in.
    """
    import ray

    where: dict[str, Any] = {"address": address}
    if address == LOCAL:
        where |= {
            "num_cpus": os.cpu_count(),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
    refusal = (
        f"the Ray cluster {address} let nobody in within {_JOIN_SECONDS:.0f} s; if it asks for a token, set "
        "RAY_AUTH_MODE=token here too"
    )
    # Ray itself would go on trying for ever.
    with _at_the_latest(_JOIN_SECONDS, refusal):
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError(f"the Ray cluster {address} cannot be joined: {_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _at_the_latest(seconds: float, sentence: str) -> Generator[None]:
    """End this process with a sentence when the block takes too long."""

    def give_up() -> None:
        sys.stderr.write(f"{SENTENCE}{sentence}\n")
        sys.stderr.flush()
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def each_part(
    work: type,
    arguments: Mapping[str, Any],
    parts: Sequence[int],
    workers: int,
    share: float | None,
) -> Iterator[Mapping[str, Any]]:
    """Yield what `work` says of each part, in the order in which they are done.

    Workers take one part after the other. A part whose worker is lost is given to another, so `work` must be
    able to go on with a part that was begun.

    Args:
        work: A class whose instances turn a batch {"part": [number]} into another; one lives in each worker.
        arguments: Of its constructor; small.
        parts: Their numbers.
        workers: At once, at the most; fewer where the cluster has less room.
        share: Accelerators of a worker; None means one where the cluster has any.

    Raises:
        RunError: The cluster has not room for one worker, or something failed that is not the work's own.
    """
    import ray
    import ray.data
    from ray.exceptions import RayError

    room = ray.cluster_resources()
    needs = needs_of(room, workers, share)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    pool = ray.data.ActorPoolStrategy(
        min_size=1,
        max_size=min(workers, len(parts)),
        initial_size=min(workers, len(parts), fits(room, needs)),
        max_tasks_in_flight_per_actor=1,
    )
    numbers = ray.data.from_items([{"part": p} for p in parts], override_num_blocks=len(parts))
    done = numbers.map_batches(
        work,
        batch_size=1,
        compute=pool,
        fn_constructor_kwargs=dict(arguments),
        num_cpus=needs["CPU"],
        num_gpus=needs["GPU"],
    )
    try:
        yield from done.iter_rows()
    except RayError as error:
        raise RunError(
            f"Ray gave up ({_line(error)}); what was finished is kept, go on with --resume"
        ) from error


def needs_of(room: Mapping[str, float], workers: int, share: float | None) -> dict[str, float]:
    """Return the processors and accelerators that a worker takes.

    Args:
        room: What the cluster has in all, under `CPU` and `GPU`.
        workers: That are to work at once.
        share: Accelerators of a worker; None means one where there is any.

    Raises:
        RunError: The cluster has not room for one.
    """
    have = room.get("GPU", 0.0)
    gpus = share if share is not None else min(1.0, have)
    if gpus > have:
        raise RunError(
            f"a worker needs {gpus:g} accelerators and the Ray cluster has {have:g}; "
            "lower --ray-accelerators, or join more machines"
        )
    cpus = max(1.0, room.get("CPU", 1.0) // workers) if not gpus else 1.0
    return {"CPU": cpus, "GPU": gpus}


def fits(room: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """Return how many workers a cluster has room for, at least 1."""
    return max(1, int(min(room.get(kind, 0.0) // n for kind, n in needs.items() if n)))


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
