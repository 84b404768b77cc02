"""The models that an upstream lists, for a guard whose configuration names none."""

import orjson

from limbeck.errors import UpstreamError
from limbeck.guard.interface.admit import ServedModel
from limbeck.guard.upstream.door import Header, Upstream

_MOST = 4 * 1024 * 1024


async def listed_models(upstream: Upstream, headers: list[Header]) -> dict[str, ServedModel]:
    """Ask the upstream what it serves.

    Raises:
        UpstreamError: It is away, or its list is not one.
    """
    reply = await upstream.send("GET", "/v1/models", headers, b"")
    body = await reply.body(_MOST)
    reply.close()
    try:
        names = [card["id"] for card in orjson.loads(body)["data"]]
    except (ValueError, TypeError, KeyError):
        names = []
    models = {name: ServedModel(name, name) for name in names if type(name) is str}
    if reply.status != 200 or not models:
        raise UpstreamError(
            f"the upstream lists no models (status {reply.status}); name them in guard.toml, as [models.NAME]"
        )
    return models
