"""The supervisor: one small process that starts the keeper and the workers, and starts them again when they die."""

import gc
import importlib
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from limbeck.errors import GuardError, LimbeckError
from limbeck.guard.coinage import Coinage
from limbeck.guard.config import GuardConfig, load_config
from limbeck.guard.logs import log
from limbeck.guard.places import Places
from limbeck.guard.upstream.door import read_address

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
STABLE_S = 5.0
"""A child that lived for so long is started again at once; one that died sooner waits a second."""
GRACE_S = 5.0
KEEPER_NICENESS = 10
"""Requests come before the signals that look back on them."""
BACKLOG = 2048


@dataclass(slots=True)
class Child:
    """One process that must be there."""

    name: str
    work: Callable[[], None]
    pid: int = 0
    started: float = 0.0
    due: float = 0.0


def serve(places: Places, coinage: Coinage | None = None) -> None:
    """Run a guard until SIGTERM or SIGINT. SIGHUP reads guard.toml again, for requests from then on.

    Args:
        places: Its folder.
        coinage: Trace's rule of tossing, where coins are configured.

    Raises:
        GuardError: The configuration cannot be used, or a port is taken.
    """
    config = load_config(places.config, places.overrides)
    read_address(config.upstream.url or "")
    _allow_connections()
    listeners = [_listen(config.server.host, config.server.port, reuse=True)]
    port = listeners[0].getsockname()[1]
    listeners += [
        _listen(config.server.host, port, reuse=True) for _ in range(config.server.workers - 1)
    ]
    admin_port = port + 1 if config.server.admin_port is None else config.server.admin_port
    admin = _listen(config.server.host, admin_port, reuse=False)
    log(
        "listening",
        host=config.server.host,
        port=port,
        admin_port=admin.getsockname()[1],
        workers=len(listeners),
    )
    Supervisor(config, places, listeners, admin, coinage).run()


class Supervisor:
    """Owns the children. It imports what they share before they are forked, so that they share its memory too."""

    def __init__(
        self,
        config: GuardConfig,
        places: Places,
        listeners: list[socket.socket],
        admin: socket.socket,
        coinage: Coinage | None,
    ) -> None:
        self._config = config
        self._places = places
        self._listeners = listeners
        self._admin = admin
        self._coinage = coinage
        self._stopping = False
        self._keeper = Child("keeper", self._keep)
        self._workers = [
            Child(f"worker {place}", lambda place=place: self._work(place))
            for place in range(len(listeners))
        ]

    def run(self) -> None:
        """Start everything and wait for signals."""
        importlib.import_module(
            "limbeck.guard.worker"
        )  # before the fork: the children share its pages
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        gc.collect()
        gc.freeze()
        for child in (self._keeper, *self._workers):
            self._start(child)
        while not self._stopping:
            found = signal.sigtimedwait(SIGNALS, 0.5)
            if found is not None:
                self._heed(found.si_signo)
            self._restart()
        self._stop()

    def _heed(self, signo: int) -> None:
        if signo == signal.SIGCHLD:
            self._reap()
        elif signo == signal.SIGHUP:
            self._reload()
        else:
            self._stopping = True

    def _start(self, child: Child) -> None:
        sys.stderr.flush()
        child.started = time.monotonic()
        child.due = 0.0
        child.pid = os.fork()
        if child.pid == 0:
            _be(child.work, child.name)

    def _restart(self) -> None:
        now = time.monotonic()
        for child in (self._keeper, *self._workers):
            if child.pid == 0 and now >= child.due:
                self._start(child)

    def _reap(self) -> None:
        for child in (self._keeper, *self._workers):
            if child.pid and os.waitpid(child.pid, os.WNOHANG)[0]:
                lived = time.monotonic() - child.started
                child.pid = 0
                child.due = time.monotonic() + (0.0 if lived >= STABLE_S else 1.0)
                if not self._stopping:
                    log("child_died", child=child.name, lived_s=round(lived, 1))

    def _reload(self) -> None:
        try:
            config = load_config(self._places.config, self._places.overrides)
        except LimbeckError as error:
            log("reload_refused", why=str(error))
            return
        if (
            config.server != self._config.server
            or config.ledger.folder != self._config.ledger.folder
        ):
            log(
                "reload_partial",
                why="[server] and ledger.folder hold until the guard is started anew",
            )
        self._config = config
        for child in self._workers:
            self._signal(child, signal.SIGHUP)

    def _stop(self) -> None:
        """Drain the workers, then let the keeper record what they said last."""
        for listener in self._listeners:
            listener.close()  # the workers hold the same sockets and close them when they drain
        for child in self._workers:
            self._signal(child, signal.SIGTERM)
        self._await(self._workers, self._config.server.drain_s + GRACE_S)
        self._signal(self._keeper, signal.SIGTERM)
        self._await([self._keeper], GRACE_S)

    def _await(self, children: list[Child], patience_s: float) -> None:
        until = time.monotonic() + patience_s
        while any(child.pid for child in children) and time.monotonic() < until:
            signal.sigtimedwait({signal.SIGCHLD}, 0.2)
            self._reap()
        for child in children:
            self._signal(child, signal.SIGKILL)

    def _signal(self, child: Child, signo: int) -> None:
        if child.pid:
            os.kill(child.pid, signo)

    def _work(self, place: int) -> None:
        from limbeck.guard.worker import run_worker

        for other, listener in enumerate(self._listeners):
            if other != place:
                listener.close()
        self._admin.close()
        run_worker(self._config, self._places, self._listeners[place], self._coinage)

    def _keep(self) -> None:
        from limbeck.guard.keeping import run_keeper

        os.nice(KEEPER_NICENESS)
        if hasattr(os, "SCHED_BATCH"):
            os.sched_setscheduler(
                0, os.SCHED_BATCH, os.sched_param(0)
            )  # and does not interrupt a worker
        for listener in self._listeners:
            listener.close()
        run_keeper(self._config, self._places, self._admin, self._coinage)


def _be(work: Callable[[], None], name: str) -> None:
    """Do a child's work in a process that was just forked, and end it."""
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        work()
        code = 0
    except LimbeckError as error:
        log("child_failed", child=name, why=str(error))
    except BaseException as error:  # noqa: BLE001 (the supervisor only sees an exit code)
        log("child_failed", child=name, why=f"{type(error).__name__}: {error}")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _allow_connections() -> None:
    """Open as many files as the system lets us: each connection is one, and a shell's usual limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listen(host: str, port: int, *, reuse: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        # A queue for each worker: the kernel spreads connections, and a worker that is started anew finds its own.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise GuardError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener
