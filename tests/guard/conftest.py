"""The admin API and the console over a furnished state, answered in process."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guardoffice import FakeLedger, Office
from guardstate import Clock, furnish, per
from limbeck.guard.admin.ledger import LedgerRecord
from limbeck.guard.state.admins import Role, create_admin
from limbeck.guard.state.home import init_state
from limbeck.guard.state.stores import open_store


@pytest.fixture
def office(tmp_path: Path) -> Generator[Office]:
    with _opened(tmp_path / "guard") as opened:
        yield opened


@pytest.fixture(scope="module")
def fuzzed_office(tmp_path_factory: pytest.TempPathFactory) -> Generator[Office]:
    """One that a module's tests may fill with anything."""
    with _opened(tmp_path_factory.mktemp("fuzzed") / "guard") as opened:
        yield opened


@contextmanager
def _opened(folder: Path) -> Generator[Office]:
    state = init_state(folder, Clock())
    furnish(state, per("requests", "day", 50))
    names = {Role.READ: "Rea", Role.OPERATE: "Olu", Role.SIGN: "Ada Lovelace"}
    with state.change("test") as change:
        keys = {role: create_admin(change, state.pepper, names[role], role)[1] for role in Role}
    store = open_store(state)
    record = LedgerRecord(6, 1_790_000_000.0, "decision", "ab" * 32, {"action": "hold"})
    yield Office(state, store, FakeLedger({"acme": [record]}), keys)
    store.shut()
    state.close()
