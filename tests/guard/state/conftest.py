"""What the tests of the state share: open guard's folders, on every database."""

import uuid
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dbservers import Postgres, Redis
from guardstate import Clock, MakeState
from limbeck.guard.secret import Pepper
from limbeck.guard.state.database import Database
from limbeck.guard.state.home import State, init_state
from limbeck.guard.state.leases import LeaseStore
from limbeck.guard.state.redis_leases import RedisLeases
from limbeck.guard.state.sql_leases import SqlLeases


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path, clock: Clock) -> Generator[State]:
    """A folder with the embedded database, and a clock that stands."""
    opened = init_state(tmp_path / "guard", clock)
    yield opened
    opened.close()


@pytest.fixture
def pepper() -> Pepper:
    return Pepper(bytes(range(32)))


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """An empty database of its own."""
    name = f"t{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(
        postgres.url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    return postgres.url.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """An empty database of its own."""
    import redis

    client = redis.Redis.from_url(redis_server.url)
    client.flushdb()
    client.close()
    return redis_server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Database]:
    """A migrated database of each kind."""
    if request.param == "sqlite":
        opened = Database(f"sqlite:///{tmp_path / 'state.db'}")
    else:
        opened = Database(request.getfixturevalue("postgres_url"))
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def make_state(tmp_path: Path) -> Generator[MakeState]:
    """Open guard's folders with a table [state] of one's own."""

    def make(clock: Callable[[], float], **settings: object) -> State:
        folder = tmp_path / f"guard{uuid.uuid4().hex[:6]}"
        folder.mkdir()
        lines = [f"{k} = {v!r}".replace("'", '"') for k, v in settings.items()]
        (folder / "guard.toml").write_text("[state]\n" + "\n".join(lines), "utf-8")
        opened.append(init_state(folder, clock))
        return opened[-1]

    opened: list[State] = []
    yield make
    for state in opened:
        state.close()


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[LeaseStore]:
    """Counters of each kind, empty."""
    if request.param == "redis":
        redis_leases = RedisLeases(request.getfixturevalue("redis_url"))
        yield redis_leases
        redis_leases.shut()
        return
    sqlite = f"sqlite:///{tmp_path / 'meters.db'}"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url)
    database.migrate()
    yield SqlLeases(database)
    database.close()
