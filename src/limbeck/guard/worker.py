"""One worker process: a gateway on a listening socket, until it is told to stop."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import orjson
import uvicorn

from limbeck.errors import LimbeckError, StateError
from limbeck.guard.coinage import Coinage
from limbeck.guard.config import GuardConfig, load_config, served_models, setting_of
from limbeck.guard.counters import Counters
from limbeck.guard.gateway import Gateway
from limbeck.guard.interface.admit import ServedModel
from limbeck.guard.listing import listed_models
from limbeck.guard.logs import log
from limbeck.guard.places import Places
from limbeck.guard.refusal import Refusal
from limbeck.guard.reporter import Reporter
from limbeck.guard.sampler import Sampler
from limbeck.guard.server import GuardedProtocol, sweep_forever
from limbeck.guard.state.home import open_state
from limbeck.guard.state.shared import SharedAccounts
from limbeck.guard.tossing import Coins
from limbeck.guard.upstream.open import open_upstream

ASK_MODELS_S = 1.0
LOOK_S = 0.25
COLLECT_AFTER = 50_000
"""New objects between two looks for garbage in cycles."""


class Server(uvicorn.Server):
    """uvicorn without hands on the signals: the worker has its own."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Worker:
    """Owns the gateway, its accounts and its line to the keeper."""

    def __init__(
        self,
        config: GuardConfig,
        places: Places,
        accounts: SharedAccounts,
        coinage: Coinage | None = None,
    ) -> None:
        self._config = config
        self._places = places
        self._accounts = accounts
        self._models: dict[str, ServedModel] = served_models(config)
        self._listed: dict[str, ServedModel] = {}
        """What the upstream says that it serves."""
        self._ledger: str | None = None
        counters = Counters()
        share, workers = config.watch, config.server.workers
        sampler = Sampler(-(-share.burst // workers), share.per_s / workers)
        self.reporter = Reporter(
            places.keeper_socket,
            counters,
            queue_bytes=share.queue_bytes,
            news=self._hear,
            skipped=sampler.skipped,
        )
        self.app = Gateway(
            setting_of(config, self._models),
            accounts,
            open_upstream(config),
            report=self.reporter.put,
            counters=counters,
            ready=self._lack,
            metrics=self._metrics,
            rules=lambda: accounts.rules,
            looks=sampler.looks,
            coins=None
            if coinage is None
            else Coins(coinage.toss, config.coins.share, frozenset(config.coins.accounts)),
            report_coin=self.reporter.put_coin,
        )
        self._guard_parts()

    async def run(self, listener: socket.socket) -> None:
        """Serve until SIGTERM; then let requests under way finish."""
        loop = asyncio.get_running_loop()
        server = _server(self.app, self._config)
        loop.add_signal_handler(signal.SIGTERM, self._stop, server)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor says when
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        tasks = [
            asyncio.create_task(job)
            for job in (
                self.reporter.run(),
                sweep_forever(server),
                self._learn_models(),
                self._look_after_parts(),
            )
        ]
        try:
            await server.serve(sockets=[listener])
        finally:
            try:
                await self.reporter.drain()
            except (OSError, TimeoutError):
                log(
                    "unreported", requests=self.reporter.waiting, why="the keeper did not take them"
                )
            for task in tasks:
                task.cancel()
            await self.app.upstream.close()

    def _stop(self, server: uvicorn.Server) -> None:
        self.app.draining = True
        server.should_exit = True

    def _reload(self) -> None:
        """Take the new configuration for requests from now on; those under way keep the old one."""
        before = self._config
        try:
            config = load_config(self._places.config, self._places.overrides)
            upstream = None if config.upstream == before.upstream else open_upstream(config)
            if upstream is not None:
                self._listed = {}
            self._take(config)
        except LimbeckError as error:
            log("reload_refused", why=str(error))
            return
        if upstream is not None:
            # Requests under way hold their connections; those go when they are done.
            self.app.upstream = upstream
        log("reloaded")

    async def _learn_models(self) -> None:
        """Ask the upstream which models it serves, as long as neither it nor the configuration has said."""
        complained = False
        while True:
            if not self._config.models and not self._listed:
                try:
                    setting = setting_of(self._config, {})
                    self._listed = await listed_models(
                        self.app.upstream, list(setting.upstream_headers)
                    )
                    self._take(self._config)
                except LimbeckError as error:
                    if not complained:
                        log("waiting_for_upstream", why=str(error))
                    complained = True
            await asyncio.sleep(ASK_MODELS_S)

    def _take(self, config: GuardConfig) -> None:
        """Judge requests by this configuration from now on.

        Raises:
            GuardError: It cannot be used; the one before stays.
        """
        models = served_models(config) or self._listed
        self.app.replace(setting_of(config, models))
        self._config, self._models = config, models
        self._guard_parts()

    def _hear(self, data: bytes) -> None:
        """Take the keeper's news."""
        self._ledger = orjson.loads(data).get("ledger")
        self._guard_parts()

    async def _look_after_parts(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._guard_parts()

    def _guard_parts(self) -> None:
        """Refuse requests while a part is away that guard.toml says must not be."""
        lack = None
        if not self._models:
            lack = "the upstream has not said yet which models it serves"
        elif self._ledger and self._config.ledger.when_away == "closed":
            lack = f"nothing can be recorded at the moment: {self._ledger}"
        elif not self.reporter.connected and self._config.watch.when_away == "closed":
            lack = "the keeper is away"
        self.app.closed = (
            None
            if lack is None
            else Refusal(503, "part_away", lack, kind="server_error", retry_after_s=1)
        )

    def _lack(self) -> str | None:
        if not self._accounts.ready:
            return "the accounts cannot be read"
        if self.app.closed is not None:
            return self.app.closed.message
        return None

    async def _metrics(self) -> bytes:
        return await self.reporter.metrics()


def run_worker(
    config: GuardConfig, places: Places, listener: socket.socket, coinage: Coinage | None = None
) -> None:
    """Be a worker; return when it was told to stop and all requests are done."""
    import uvloop

    logging.getLogger("uvicorn.error").setLevel(
        logging.CRITICAL + 1
    )  # what it says, our own lines say
    state = open_state(places.folder)
    try:
        accounts = SharedAccounts(state).start()
        # A request leaves no cycles behind; what is there now stays. Looking through it would only cause pauses.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(Worker(config, places, accounts, coinage).run(listener))
        finally:
            with suppress(StateError):
                accounts.close()
    finally:
        state.close()


def _server(app: Any, config: GuardConfig) -> Server:
    protocol = type("LimitedProtocol", (GuardedProtocol,), {"limits": config.connection_limits})
    return Server(_uvicorn(app, protocol, int(config.server.drain_s)))


def admin_server(app: Any) -> Server:
    """Return the server of the admin port; it has the same limits as a worker's by default."""
    return Server(_uvicorn(app, GuardedProtocol, 2))


def _uvicorn(app: Any, protocol: type[GuardedProtocol], drain_s: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol,
        loop="none",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=2048,
        timeout_graceful_shutdown=drain_s,
    )
