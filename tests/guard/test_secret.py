from pathlib import Path

import pytest

from limbeck.errors import StateError
from limbeck.guard.secret import Pepper, load_pepper, make_pepper


def test_the_same_text_hashes_apart_for_each_purpose_and_each_pepper() -> None:
    one, two = Pepper(bytes(32)), Pepper(bytes(range(32)))
    hashes = (
        {p.key("x").hex()[:32] for p in (one, two)}
        | {p.payment("x") for p in (one, two)}
        | {p.mark() for p in (one, two)}
    )
    assert len(hashes) == 6
    assert one.key("x") == Pepper(bytes(32)).key("x")


def test_a_pepper_stays_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    made = make_pepper(path)
    assert make_pepper(path) == made == load_pepper(path, {})
    assert path.stat().st_mode & 0o077 == 0
    assert made.secret.hex() not in repr(made)
    path.chmod(0o644)
    with pytest.raises(StateError, match="can be read by others: chmod 600"):
        load_pepper(path, {})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    make_pepper(tmp_path / "pepper")
    given = load_pepper(tmp_path / "pepper", {"LIMBECK_GUARD_PEPPER": "ab" * 32})
    assert given.secret == bytes.fromhex("ab" * 32)


@pytest.mark.parametrize("text", ["", "zz", "ab" * 31, "ab" * 33, "é" * 64])
def test_a_malformed_pepper_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pepper"
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    with pytest.raises(StateError, match="must hold 64 hexadecimal digits"):
        load_pepper(path, {})


def test_no_pepper_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="limbeck guard init"):
        load_pepper(tmp_path / "none", {})
