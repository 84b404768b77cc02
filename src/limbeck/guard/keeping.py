"""The keeper's process: ledger, watch and accounts opened, the socket served, the admin port beside it."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from limbeck.guard.brain import Brain
from limbeck.guard.config import GuardConfig
from limbeck.guard.keeper import Keeper
from limbeck.guard.places import Places
from limbeck.guard.sanctions import proposing
from limbeck.guard.state.home import open_state
from limbeck.guard.watch import Watch
from limbeck.ledger.keys import SIGNING, Keys, create_keys, read_keys
from limbeck.ledger.log import open_log


def run_keeper(config: GuardConfig, places: Places, listener: socket.socket) -> None:
    """Be the keeper; return when it was told to stop and all is recorded."""
    ledger = places.ledger(config)
    keys = ledger_keys(ledger.parent, config.ledger.name)
    policy = places.policy(config)
    watch = (
        Watch.open(secret=keys.secret) if policy is None else Watch.open(policy, secret=keys.secret)
    )
    state = open_state(places.folder)
    try:
        with open_log(ledger, keys) as records:
            brain = Brain(
                watch, proposing(state), secret=keys.secret, sketches=config.ledger.sketches
            )
            keeper = Keeper(
                places.keeper_socket,
                brain,
                records,
                log_requests=config.log.requests,
                trace=_trace(config),
            )
            asyncio.run(_run(keeper, listener))
    finally:
        state.close()


def ledger_keys(folder: Path, name: str) -> Keys:
    """Return the ledger's keys; make them where the folder has none yet."""
    return read_keys(folder) if (folder / SIGNING).exists() else create_keys(folder, name)


async def _run(keeper: Keeper, listener: socket.socket) -> None:
    from limbeck.guard.worker import Server, admin_server

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    server: Server = admin_server(_admin(keeper))

    def end() -> None:
        server.should_exit = True
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    await asyncio.gather(keeper.run(stop), server.serve(sockets=[listener]))


def _admin(keeper: Keeper) -> Starlette:
    """Return the application of the admin port."""

    async def metrics(request: Request) -> Response:
        return Response(keeper.metrics(), media_type="text/plain; version=0.0.4")

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        health = keeper.brain.health
        lacks = {
            part: why for part in ("ledger", "sanctions", "watch") if (why := getattr(health, part))
        }
        return JSONResponse(
            {"status": "not ready" if lacks else "ready", **lacks}, 503 if lacks else 200
        )

    return Starlette(
        routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]
    )


def _trace(config: GuardConfig) -> Callable[[Any], None] | None:
    if config.telemetry.endpoint is None:
        return None
    from limbeck.guard.telemetry import tracing

    return tracing(config.telemetry)
