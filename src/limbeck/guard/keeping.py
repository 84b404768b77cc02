"""The keeper's process: ledger, watch and accounts opened, the socket served, the admin port beside it."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from limbeck.artefact import write_bytes
from limbeck.errors import GuardError, StateError
from limbeck.guard import lifts
from limbeck.guard.admin.log_view import LogView
from limbeck.guard.brain import Brain
from limbeck.guard.coinage import Coinage, keeping
from limbeck.guard.config import GuardConfig
from limbeck.guard.console.office import office
from limbeck.guard.journal import Journal, Journaled, Keeping
from limbeck.guard.keeper import Keeper
from limbeck.guard.logs import log
from limbeck.guard.places import Places
from limbeck.guard.sanctions import proposing
from limbeck.guard.state.home import State, open_state
from limbeck.guard.state.stores import open_store
from limbeck.guard.watch import Watch
from limbeck.ledger.keys import SIGNING, Keys, create_keys, read_keys
from limbeck.ledger.log import open_log

LIFTS_S = 1.0
"""How often the accounts are asked what people have taken back."""
TEND_S = 0.5
TIDY_S = 3600.0
SNAPSHOT_S = 60.0
"""How often what the watch remembers is written down; a keeper that is killed forgets no more than this."""


def run_keeper(
    config: GuardConfig, places: Places, listener: socket.socket, coinage: Coinage | None = None
) -> None:
    """Be the keeper; return when it was told to stop and all is recorded."""
    ledger = places.ledger(config)
    keys = ledger_keys(ledger.parent, config.ledger.name)
    watch = open_watch(places, config, keys.secret)
    state = open_state(places.folder)
    store = open_store(state)
    journal = open_journal(places, config)
    try:
        _catch_up(watch, state)
        with open_log(ledger, keys) as records:
            brain = Brain(
                watch if journal is None else Journaled(watch, journal),
                proposing(state),
                secret=keys.secret,
                sketches=config.ledger.sketches,
                keep_coin=None if coinage is None else keeping(places.coins, coinage),
            )
            keeper = Keeper(
                places.keeper_socket,
                brain,
                records,
                log_requests=config.log.requests,
                trace=_trace(config),
            )
            desk = office(state, store, LogView(ledger, keys.secret))
            jobs = [_remember(watch, places.snapshot), _hear_people(watch, state)]
            if journal is not None:
                jobs.append(_tend(journal))
            asyncio.run(_run(keeper, admin(keeper, desk), listener, jobs))
            _write(places.snapshot, watch.snapshot())
    finally:
        if journal is not None:
            journal.close()
        store.shut()
        state.close()


def ledger_keys(folder: Path, name: str) -> Keys:
    """Return the ledger's keys; make them where the folder has none yet."""
    return read_keys(folder) if (folder / SIGNING).exists() else create_keys(folder, name)


def open_watch(places: Places, config: GuardConfig, secret: bytes) -> Watch:
    """Return the watch with what it remembered; one that was made for another calibration starts anew."""
    policy = places.policy(config)
    watch = Watch.open(secret=secret) if policy is None else Watch.open(policy, secret=secret)
    if places.snapshot.exists():
        try:
            watch.restore(places.snapshot.read_bytes())
        except GuardError as error:
            log("snapshot_refused", why=str(error))
    return watch


def open_journal(places: Places, config: GuardConfig) -> Journal | None:
    """Return the traffic log, None where the operator wants none."""
    folder = places.traffic(config)
    if folder is None:
        return None
    texts = {one.account: Keeping(one.reason, one.days) for one in config.traffic.texts}
    for name, one in texts.items():
        log("texts_kept", account=name, why=one.reason, days=one.days)
    return Journal(folder, days=config.traffic.days, texts=texts)


def _catch_up(watch: Watch, state: State) -> None:
    """Take in what people have taken back since the snapshot; before the first request is weighed."""
    if watch.lifted is None:  # it knows nobody yet
        watch.lifted = lifts.newest(state)
    lifts.take_in(watch, lifts.since(state, watch.lifted))


async def _run(
    keeper: Keeper,
    app: ASGIApp,
    listener: socket.socket,
    jobs: Sequence[Coroutine[Any, Any, None]],
) -> None:
    from limbeck.guard.worker import admin_server

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = admin_server(app)

    def end() -> None:
        server.should_exit = True
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        await asyncio.gather(keeper.run(stop), server.serve(sockets=[listener]))
    finally:
        for task in tasks:
            task.cancel()


async def _hear_people(watch: Watch, state: State) -> None:
    """Take in what people take back, soon after they do."""
    while True:
        await asyncio.sleep(LIFTS_S)
        with contextlib.suppress(StateError):  # the database is away: the next turn asks again
            lifts.take_in(watch, await asyncio.to_thread(lifts.since, state, watch.lifted or 0))


async def _tend(journal: Journal) -> None:
    """Flush the traffic log, and remove from it what is due."""
    lack: str | None = None
    tidied = -TIDY_S
    while True:
        journal.flush()
        if journal.lack != lack:
            lack = journal.lack
            log("traffic_log_away" if lack else "traffic_log_back", why=lack, lost=journal.lost)
        if time.monotonic() - tidied >= TIDY_S:
            tidied = time.monotonic()
            try:
                await asyncio.to_thread(journal.tidy)
            except OSError as error:
                log("traffic_log_untidy", why=str(error))
        await asyncio.sleep(TEND_S)


async def _remember(watch: Watch, snapshot: Path) -> None:
    while True:
        await asyncio.sleep(SNAPSHOT_S)
        await asyncio.to_thread(_write, snapshot, watch.snapshot())


def _write(snapshot: Path, data: bytes) -> None:
    with contextlib.suppress(
        OSError
    ):  # a full disk: the ledger says so, and the next turn tries again
        write_bytes(snapshot, data)


def admin(keeper: Keeper, desk: ASGIApp) -> Starlette:
    """Return the application of the admin port: metrics and health, then the admin API and the console."""

    async def metrics(request: Request) -> Response:
        return Response(keeper.metrics(), media_type="text/plain; version=0.0.4")

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        health = keeper.brain.health
        parts = ("ledger", "sanctions", "watch")
        lacks = {part: why for part in parts if (why := getattr(health, part))}
        return JSONResponse(
            {"status": "not ready" if lacks else "ready", **lacks}, 503 if lacks else 200
        )

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Mount("/", desk),
        ]
    )


def _trace(config: GuardConfig) -> Callable[[Any], None] | None:
    if config.telemetry.endpoint is None:
        return None
    from limbeck.guard.telemetry import tracing

    return tracing(config.telemetry)
