"""A gateway that does nothing: the guard's server and client with no guard between them, which is the stack's limit.

`python benchmarks/barepass.py PORT UPSTREAM WORKERS`
"""

import asyncio
import os
import socket
import sys
from typing import Any

import uvicorn
import uvloop

from limbeck.guard.heads import reply_headers
from limbeck.guard.server import GuardedProtocol
from limbeck.guard.upstream.door import Patience, read_address
from limbeck.guard.upstream.pool import Pool

_KEPT = (b"content-type", b"accept", b"user-agent")


class Pass:
    """Sends every request on and every reply back."""

    def __init__(self, upstream: str) -> None:
        self._pool = Pool(read_address(upstream), Patience())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        headers = [header for header in scope["headers"] if header[0] in _KEPT]
        reply = await self._pool.send(scope["method"], scope["path"], headers, body)
        await send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": reply_headers(reply.headers),
            }
        )
        while chunk := await reply.chunk():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def serve(port: int, upstream: str) -> None:
    """Serve until killed."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        Pass(upstream), http=GuardedProtocol, loop="none", lifespan="off", ws="none", log_config=None,
        access_log=False, proxy_headers=False, server_header=False, date_header=False,
    )  # fmt: skip
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    for _ in range(int(sys.argv[3]) - 1):
        if os.fork() == 0:
            break
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), sys.argv[2]))
