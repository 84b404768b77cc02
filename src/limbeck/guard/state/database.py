"""The accounts' database: opened by URL, migrated, read and written in transactions."""

import functools
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from limbeck.errors import StateError

_MIGRATIONS = Path(__file__).with_name("migrations")
_BUSY_MS = 5_000
_CONNECT_S = 3
_STATEMENT_MS = 10_000
_MIGRATION_LOCK = 0x6C696D62  # any number that nobody else takes
_WRITES = "limbeck_writes"


class Database:
    """Connections to SQLite or PostgreSQL. Open one in each process: connections do not survive a fork.

    Args:
        url: `sqlite:///PATH` or `postgresql://USER@HOST/NAME`. A password belongs into the environment
            (`PGPASSWORD`) or a password file.
        durable: Whether SQLite waits for the disk at every commit. Without, the last moments before the
            machine loses power may be forgotten; a killed process forgets nothing either way.

    Raises:
        StateError: The URL names no database that Limbeck knows.
    """

    def __init__(self, url: str, *, durable: bool = True) -> None:
        self.url = _parsed(url)
        self.name = self.url.render_as_string(hide_password=True)
        self.embedded = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite(self.url, durable) if self.embedded else _postgres(self.url)

    @contextmanager
    def read(self) -> Generator[sa.Connection]:
        """Read from one snapshot.

        Raises:
            StateError: The database cannot be reached.
        """
        with self._translated(), self.engine.connect() as connection:
            if not self.embedded:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Generator[sa.Connection]:
        """Write in one transaction, committed when the block ends and rolled back when it raises.

        Raises:
            StateError: The database cannot be reached, or is busy for too long. Whether the transaction
                was committed is then unknown only if the connection broke during the commit itself.
        """
        with self._translated(), self.engine.connect() as connection:
            writing = connection.execution_options(**{_WRITES: True})
            with writing.begin():
                yield writing

    def migrate(self) -> str:
        """Bring the tables to this version of Limbeck; return the revision. Two at once wait for each other."""
        from alembic import command

        with self.write() as connection:
            if not self.embedded:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            command.upgrade(self._alembic(connection), "head")
        return newest()

    def check(self) -> None:
        """Check that the tables are this version's.

        Raises:
            StateError: They are older or newer, or not there; says what to do.
        """
        from alembic.runtime.migration import MigrationContext

        if self.embedded and not Path(self.url.database or "").is_file():
            raise StateError(f"there is no database at {self.url.database}: run limbeck guard init")
        with self.read() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        if found is None:
            raise StateError(f"{self.name} holds no accounts yet: run limbeck guard init")
        if found < newest():
            raise StateError(
                f"{self.name} is at revision {found} and this Limbeck needs {newest()}: "
                "run limbeck guard init once more"
            )
        if found > newest():
            raise StateError(
                f"{self.name} is at revision {found}, made by a newer Limbeck; this one knows {newest()}"
            )

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _alembic(self, connection: sa.Connection) -> Any:
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        return config

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            raise StateError(f"{self.name}: {_cause(error)}") from error
        except exc.DBAPIError as error:
            if error.connection_invalidated:
                raise StateError(f"{self.name}: {_cause(error)}") from error
            raise


@functools.cache
def newest() -> str:
    """Return the newest revision that this version of Limbeck knows."""
    return max(path.name.split("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _cause(error: exc.SQLAlchemyError) -> str:
    origin = getattr(error, "orig", None) or error
    return " ".join(str(origin).split())


def _parsed(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError:
        raise StateError(_unknown(url)) from None
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return parsed
        case "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        case _:
            raise StateError(_unknown(url))


def _unknown(url: str) -> str:
    shown = url.partition("://")[0] + "://…" if "://" in url else url
    return f"state.database must be sqlite:///PATH or postgresql://HOST/NAME, got {shown}"


def _sqlite(url: sa.URL, durable: bool) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_MS / 1000})

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres(url: sa.URL) -> sa.Engine:
    return sa.create_engine(
        url,
        pool_pre_ping=True,
        pool_size=2,
        connect_args={
            "connect_timeout": _CONNECT_S,
            "options": f"-c statement_timeout={_STATEMENT_MS} -c lock_timeout={_BUSY_MS}",
        },
    )
