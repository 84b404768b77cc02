import pytest
import sqlalchemy as sa

from guardstate import T0, Clock, furnish
from limbeck.errors import AccountError
from limbeck.guard.state import tables
from limbeck.guard.state.home import State
from limbeck.guard.state.keys import create_key, key, key_id, keys, revoke_key, rotate_key
from limbeck.guard.state.mirror import Mirror
from limbeck.guard.state.register import close_account


def opens(state: State, text: str, now: float) -> bool:
    mirror = Mirror(state.database, state.pepper)
    mirror.refresh()
    return mirror.find(text, now) is not None


def test_a_key_is_nowhere_in_the_database(state: State) -> None:
    text = furnish(state)
    with state.database.engine.connect() as connection:
        for table in tables.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                assert text not in str(row)
                assert text[14:] not in str(row)
    assert text.encode() not in (state.folder / "state.db").read_bytes()
    with state.read() as connection:
        stored = key(connection, key_id(text))
    assert stored.digest == state.pepper.key(text)
    assert stored.digest.hex() not in repr(stored)


def test_a_key_opens_its_account_and_a_wrong_one_opens_nothing(state: State) -> None:
    text = furnish(state)
    assert opens(state, text, T0)
    for wrong in (
        "",
        "lk-",
        text[:-1],
        text + "x",
        text.swapcase(),
        f"{text[:14]}{'a' * 43}",
        "é" * 60,
    ):
        assert not opens(state, wrong, T0)


def test_a_rotated_key_opens_until_the_overlap_is_over(state: State) -> None:
    old = furnish(state)
    with state.change("test") as change:
        new = rotate_key(change, state.pepper, key_id(old), overlap_seconds=60.0)
    assert new.key.replaces == key_id(old)
    assert [opens(state, text, T0 + 59) for text in (old, new.secret)] == [True, True]
    assert [opens(state, text, T0 + 60) for text in (old, new.secret)] == [False, True]


def test_rotation_never_makes_a_key_live_longer(state: State) -> None:
    furnish(state)
    with state.change("test") as change:
        made = create_key(change, state.pepper, "acme", expires=T0 + 10)
        new = rotate_key(change, state.pepper, made.key.id, overlap_seconds=60.0)
    assert new.key.expires == T0 + 10
    with state.read() as connection:
        assert key(connection, made.key.id).expires == T0 + 10


def test_a_revoked_key_opens_nothing_and_is_not_rotated_or_revoked_again(state: State) -> None:
    text = furnish(state)
    with state.change("test") as change:
        revoke_key(change, key_id(text))
    assert not opens(state, text, T0)
    with pytest.raises(AccountError, match="revoked already"), state.change("test") as change:
        revoke_key(change, key_id(text))
    with (
        pytest.raises(AccountError, match="opens nothing any more"),
        state.change("test") as change,
    ):
        rotate_key(change, state.pepper, key_id(text))


def test_the_keys_of_a_closed_account_open_nothing(state: State) -> None:
    text = furnish(state)
    with state.change("test") as change:
        close_account(change, "acme")
    assert not opens(state, text, T0)
    with pytest.raises(AccountError, match="is closed"), state.change("test") as change:
        create_key(change, state.pepper, "acme")


def test_a_whole_key_in_place_of_its_id_is_not_repeated(state: State) -> None:
    text = furnish(state)
    with pytest.raises(AccountError) as caught, state.change("test") as change:
        revoke_key(change, text)
    assert text[14:] not in str(caught.value)


def test_keys_are_listed_by_account(state: State, clock: Clock) -> None:
    first = furnish(state)
    furnish(state, account="other")
    clock.now += 1
    with state.change("test") as change:
        second = create_key(change, state.pepper, "acme", label="second")
    with state.read() as connection:
        assert [k.id for k in keys(connection, "acme")] == [key_id(first), second.key.id]
        assert len(keys(connection)) == 3


def test_a_key_must_expire_in_the_future(state: State) -> None:
    furnish(state)
    with pytest.raises(AccountError, match="in the future"), state.change("test") as change:
        create_key(change, state.pepper, "acme", expires=T0)
