"""The small ledger and one of its bundles, made once a module."""

from pathlib import Path

import pytest

from smallledger import Ledger, some_traffic


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    made = Ledger(tmp_path_factory.mktemp("ledger") / "log.db")
    made.write(some_traffic)
    return made


@pytest.fixture
def fresh(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "log.db")


@pytest.fixture(scope="module")
def bundle(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "anna.zip"
    return ledger.export("anna", out, policy="rules = 1\n", texts=True)
