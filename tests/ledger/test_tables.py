import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from limbeck.errors import LedgerError
from limbeck.ledger.tables import connect, connect_to_read

FULL, SECURE = 2, 1


def test_a_commit_waits_for_the_disk_and_deleted_bytes_are_overwritten(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "log.db")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (FULL,)
        assert db.execute("PRAGMA secure_delete").fetchone() == (SECURE,)


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "log.db")) as db:
        db.execute("INSERT INTO meta VALUES ('format', 'limbeck-log/1')")
    with (
        closing(connect_to_read(tmp_path / "log.db")) as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        reader.execute("DELETE FROM meta")


@pytest.mark.parametrize("form", [None, "limbeck-log/2"])
def test_a_database_of_another_format_is_no_ledger(tmp_path: Path, form: str | None) -> None:
    with closing(connect(tmp_path / "log.db")) as db:
        if form is not None:
            db.execute("INSERT INTO meta VALUES ('format', ?)", (form,))
        with pytest.raises(LedgerError, match="is no ledger of the format"):
            connect_to_read(tmp_path / "log.db")
