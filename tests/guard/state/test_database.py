import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from limbeck.errors import AccountError, StateError
from limbeck.guard.state import tables
from limbeck.guard.state.database import Database, newest
from limbeck.guard.state.writing import writing


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == newest()


def test_migrating_again_or_twice_at_once_changes_nothing(database: Database) -> None:
    twice = [threading.Thread(target=database.migrate) for _ in range(2)]
    for thread in twice:
        thread.start()
    for thread in twice:
        thread.join()
    database.check()


def test_a_database_without_tables_of_another_version_or_absent_says_what_to_do(
    tmp_path: Path,
) -> None:
    with pytest.raises(StateError, match="limbeck guard init"):
        Database(f"sqlite:///{tmp_path / 'none.db'}").check()
    sqlite3.connect(tmp_path / "empty.db").execute("CREATE TABLE t (a)").connection.close()
    with pytest.raises(StateError, match="holds no accounts yet"):
        Database(f"sqlite:///{tmp_path / 'empty.db'}").check()
    newer = Database(f"sqlite:///{tmp_path / 'newer.db'}")
    newer.migrate()
    with newer.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StateError, match="made by a newer Limbeck"):
        newer.check()
    newer.close()


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_other_databases_are_refused_by_name(url: str) -> None:
    with pytest.raises(StateError, match="must be sqlite:///PATH or postgresql://"):
        Database(url)


def test_a_password_is_in_no_message() -> None:
    database = Database("postgresql://guard:hunter2@127.0.0.1:1/none")
    with pytest.raises(StateError) as caught, database.read():
        pass
    assert "hunter2" not in str(caught.value)
    with pytest.raises(StateError) as caught:
        Database("mysql://guard:hunter2@h/d")
    assert "hunter2" not in str(caught.value)


def test_what_raises_is_undone_with_its_event(database: Database) -> None:
    def failing() -> None:
        with writing(database, by="test", now=1.0) as change:
            change.remember("tried")
            raise AccountError("no")

    with pytest.raises(AccountError):
        failing()
    with database.read() as connection:
        assert connection.execute(tables.event.select()).all() == []
        assert connection.execute(tables.epoch.select()).one().n == 0


def test_epochs_are_committed_in_their_order(database: Database) -> None:
    order: list[int] = []

    def write() -> None:
        for _ in range(10):
            with writing(database, by="test", now=1.0) as change:
                order.append(change.epoch)
                change.touch("plan", str(change.epoch))

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == list(range(1, 31))


def test_a_change_has_an_author(database: Database) -> None:
    with (
        pytest.raises(AccountError, match="name of who makes it"),
        writing(database, by=" ", now=1.0),
    ):
        pass
