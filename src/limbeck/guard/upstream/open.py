"""Which client reaches an upstream: the fast one where the way is plain, aiohttp for TLS and proxies."""

from limbeck.guard.config import GuardConfig
from limbeck.guard.upstream.door import Upstream, read_address
from limbeck.guard.upstream.pool import Pool


def open_upstream(config: GuardConfig) -> Upstream:
    """Return a client for the configured upstream.

    Raises:
        GuardError: There is none, or its URL is not one.
    """
    table = config.upstream
    address = read_address(table.url or "")
    if address.scheme == "http" and table.proxy is None:
        return Pool(address, config.patience, most=table.connections)
    from limbeck.guard.upstream.session import Session  # aiohttp: a second's import that few need

    return Session(address, config.patience, most=table.connections, proxy=table.proxy)
