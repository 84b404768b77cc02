"""Where budgets are counted: in the accounts' database, or in Redis."""

from limbeck.guard.state.database import Database
from limbeck.guard.state.home import State
from limbeck.guard.state.leases import LeaseStore
from limbeck.guard.state.sql_leases import SqlLeases


def open_store(state: State) -> LeaseStore:
    """Open the counters that the settings name.

    The embedded database is opened once more, without waiting for the disk at every commit: a lease that a power
    failure forgets is one that its worker forgot as well.

    Raises:
        StateError: The URL names nothing that counts, or it cannot be reached.
        MissingDependencyError: Redis is asked for and its client is not installed.
    """
    if state.settings.counters is not None:
        from limbeck.guard.state.redis_leases import RedisLeases

        return RedisLeases(state.settings.counters)
    if state.database.embedded:
        url = state.database.url.render_as_string(hide_password=False)
        return SqlLeases(Database(url, durable=False))
    return SqlLeases(state.database)
