import shutil
from pathlib import Path

import pytest

from guardstate import furnish
from limbeck.errors import GuardError, StateError
from limbeck.guard.state.home import State, init_state, open_state
from limbeck.guard.state.settings import StateSettings, WhenGone, load_settings, parse_settings


def test_a_folder_is_made_once_and_opened_again(state: State) -> None:
    furnish(state)
    again = init_state(state.folder)
    opened = open_state(state.folder)
    assert again.pepper == opened.pepper == state.pepper
    assert opened.settings == StateSettings(
        database="sqlite:///state.db",
        accounts_when_gone=WhenGone.REFUSE,
        budgets_when_gone=WhenGone.REFUSE,
    )
    for one in (again, opened):
        one.close()


def test_a_folder_that_nobody_made_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="run limbeck guard init"):
        open_state(tmp_path)


def test_another_pepper_is_noticed(state: State, tmp_path: Path) -> None:
    other = init_state(tmp_path / "other")
    other.close()
    shutil.copy(tmp_path / "other" / "pepper", state.folder / "pepper")
    for door in (open_state, init_state):
        with pytest.raises(StateError, match="hashed with another pepper"):
            door(state.folder)


def test_an_unknown_key_lists_the_known_ones_and_other_tables_are_left_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "guard.toml").write_text("[serve]\nport = 1\n[state]\ndatabse = 'x'\n", "utf-8")
    with pytest.raises(GuardError, match=r"no key state\.databse; the keys are database, counters"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"accounts_when_gone": "maybe"}, r"state\.accounts_when_gone"),
        ({"refresh_seconds": 0}, r"state\.refresh_seconds"),
        ({"lost_seconds": 20.0}, "at least 3 times state.lease_seconds"),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence(table: dict[str, object], match: str) -> None:
    with pytest.raises(GuardError, match=match):
        parse_settings(table)


def test_toml_that_is_none_says_where(tmp_path: Path) -> None:
    (tmp_path / "guard.toml").write_text("[state\n", "utf-8")
    with pytest.raises(GuardError, match="is not valid TOML"):
        load_settings(tmp_path)


def test_the_environment_names_the_database_with_its_password(tmp_path: Path) -> None:
    settings = load_settings(
        tmp_path,
        {"LIMBECK_GUARD_DATABASE": "postgresql://h/d", "LIMBECK_GUARD_COUNTERS": "redis://h/0"},
    )
    assert (settings.database, settings.counters) == ("postgresql://h/d", "redis://h/0")
