"""The guard's folder: its settings, its pepper and its database, made once and opened by every command and worker."""

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from limbeck.errors import StateError
from limbeck.guard.secret import PEPPER_VARIABLE, Pepper, load_pepper, make_pepper
from limbeck.guard.state.database import Database
from limbeck.guard.state.rules import read_setting, write_setting
from limbeck.guard.state.settings import CONFIG_NAME, StateSettings, load_settings
from limbeck.guard.state.writing import Writing, writing

_MARK = "pepper"
_CONFIG = """\
# What a key means, and its default: docs/accounts.md
[state]
database = "sqlite:///state.db"
# database = "postgresql://guard@db.example/guard"    several gateways; the password in PGPASSWORD
# counters = "redis://cache.example/0"                budgets of several gateways
accounts_when_gone = "refuse"
budgets_when_gone = "refuse"
"""


@dataclass(frozen=True, slots=True)
class State:
    """An open guard's folder: the database, the pepper, the settings and the clock that everything goes by."""

    folder: Path
    settings: StateSettings
    pepper: Pepper
    database: Database
    clock: Callable[[], float] = time.time

    @contextmanager
    def change(self, by: str) -> Generator[Writing]:
        """Open one change, in somebody's name."""
        with writing(self.database, by=by, now=self.clock()) as change:
            yield change

    @contextmanager
    def read(self) -> Generator[sa.Connection]:
        """Read from one snapshot."""
        with self.database.read() as connection:
            yield connection

    @property
    def shares(self) -> Path:
        """The folder of the workers' counters."""
        return self.folder / self.settings.shares

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def init_state(folder: Path, clock: Callable[[], float] = time.time) -> State:
    """Make what is missing of a guard's folder, and bring its database up to date. Nothing that is there is lost.

    Raises:
        StateError: The database cannot be reached, or its keys were hashed with another pepper.
        GuardError: guard.toml cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = folder / CONFIG_NAME
    if not config.exists():
        config.write_text(_CONFIG, "utf-8")
    settings = load_settings(folder)
    pepper = _pepper(folder, settings, make=True)
    state = State(folder, settings, pepper, _database(folder, settings), clock)
    state.database.migrate()
    with state.change("limbeck guard init") as change:
        if read_setting(change.connection, _MARK) is None:
            write_setting(change, _MARK, pepper.mark())
    _check_pepper(state)
    return state


def open_state(folder: Path, clock: Callable[[], float] = time.time) -> State:
    """Open a guard's folder that `init_state` made.

    Raises:
        StateError: It is not there, at another revision, or has another pepper.
        GuardError: guard.toml cannot be used.
    """
    settings = load_settings(folder)
    database = _database(folder, settings)
    database.check()
    state = State(folder, settings, _pepper(folder, settings, make=False), database, clock)
    _check_pepper(state)
    return state


def _database(folder: Path, settings: StateSettings) -> Database:
    head, slashes, path = settings.database.partition("sqlite:///")
    if slashes and not head:
        return Database(f"sqlite:///{(folder / path).resolve()}")
    return Database(settings.database)


def _pepper(folder: Path, settings: StateSettings, *, make: bool) -> Pepper:
    path = folder / settings.pepper
    if make and not path.exists() and PEPPER_VARIABLE not in os.environ:
        return make_pepper(path)
    return load_pepper(path)


def _check_pepper(state: State) -> None:
    with state.read() as connection:
        known = read_setting(connection, _MARK)
    if known != state.pepper.mark():
        raise StateError(
            f"the keys in {state.database.name} were hashed with another pepper than this one: "
            f"bring {state.folder / state.settings.pepper} from the machine where they were made"
        )
