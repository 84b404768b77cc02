import stat
from pathlib import Path

import pytest

from limbeck.errors import LedgerError
from limbeck.ledger.keys import PSEUDONYM, PUBLIC, SIGNING, create_keys, read_keys
from limbeck.ledger.note import parse_key


def test_keys_read_back_and_the_public_one_is_theirs(tmp_path: Path) -> None:
    made = create_keys(tmp_path / "keys", "example.org/guard")
    read = read_keys(tmp_path / "keys")
    assert (read.signer.public, read.secret) == (made.signer.public, made.secret)
    assert parse_key((tmp_path / "keys" / PUBLIC).read_text()) == made.signer.public


def test_secret_files_are_for_their_owner_only(tmp_path: Path) -> None:
    create_keys(tmp_path, "example.org/guard")
    for name in (SIGNING, PSEUDONYM):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("name", [SIGNING, PSEUDONYM])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, name: str) -> None:
    create_keys(tmp_path, "example.org/guard")
    (tmp_path / name).chmod(0o640)
    with pytest.raises(LedgerError, match=r"may be read by others \(mode 0640\)"):
        read_keys(tmp_path)


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    create_keys(tmp_path, "example.org/guard")
    before = (tmp_path / SIGNING).read_text()
    with pytest.raises(LedgerError, match="is there already"):
        create_keys(tmp_path, "example.org/guard")
    assert (tmp_path / SIGNING).read_text() == before


@pytest.mark.parametrize("name", [SIGNING, PSEUDONYM])
@pytest.mark.parametrize("text", ["", "nonsense", "PRIVATE+KEY+a+b+QQ=="])
def test_a_damaged_key_is_refused(tmp_path: Path, name: str, text: str) -> None:
    create_keys(tmp_path, "example.org/guard")
    (tmp_path / name).write_text(text)
    with pytest.raises(LedgerError, match=str(tmp_path)):
        read_keys(tmp_path)


def test_a_signing_key_with_another_name_in_it_is_refused(tmp_path: Path) -> None:
    create_keys(tmp_path, "example.org/guard")
    path = tmp_path / SIGNING
    path.write_text(path.read_text().replace("guard", "gourd"))
    with pytest.raises(LedgerError, match="its key id does not match"):
        read_keys(tmp_path)


def test_missing_keys_say_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="keygen"):
        read_keys(tmp_path)


def test_keys_do_not_show_their_secrets(tmp_path: Path) -> None:
    made = create_keys(tmp_path, "example.org/guard")
    assert made.secret.hex() not in repr(made)
    assert str(made.secret) not in repr(made)
