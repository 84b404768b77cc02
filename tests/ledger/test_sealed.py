from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import LedgerError
from limbeck.ledger.container import from_zip, read_container, to_zip
from limbeck.ledger.encoding import canonical
from limbeck.ledger.note import new_signer, sign
from limbeck.ledger.sealed import MANIFEST, SEAL, open_sealed, seal

FORM = "limbeck-test/1"
SIGNER = new_signer("example.org/guard", seed=bytes(32))
FILES = {"a.txt": b"one\n", "b.jsonl": b'{"x":1}\n{"x":2}\n'}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "it.zip"
    seal(path, FILES, {"format": FORM, "n": 3}, SIGNER)
    return path


def test_a_bundle_opens_as_it_was_sealed(sealed: Path) -> None:
    opened = open_sealed(sealed, FORM, SIGNER.public)
    assert opened.files == FILES
    assert opened.about["n"] == 3
    assert opened.values("b.jsonl")[1] == ({"x": 2}, "line 2 of b.jsonl")


@given(st.data())
def test_a_bundle_with_any_byte_changed_does_not_open(sealed: Path, data: st.DataObject) -> None:
    raw = bytearray(sealed.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    other = sealed.with_name("other.zip")
    other.write_bytes(raw)
    with pytest.raises(LedgerError):
        open_sealed(other, FORM)


@given(st.data())
def test_a_file_with_any_byte_changed_is_found_though_the_archive_is_packed_anew(
    sealed: Path, data: st.DataObject
) -> None:
    files = from_zip(sealed.read_bytes())
    name = data.draw(st.sampled_from(sorted(files)))
    raw = bytearray(files[name])
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    other = sealed.with_name("other.zip")
    other.write_bytes(to_zip({**files, name: bytes(raw)}))
    with pytest.raises(LedgerError):
        open_sealed(other, FORM)


@pytest.mark.parametrize("name", [*FILES, MANIFEST, SEAL])
def test_a_dropped_file_is_missed(sealed: Path, name: str, tmp_path: Path) -> None:
    files = read_container(sealed)
    del files[name]
    (tmp_path / "it.zip").write_bytes(to_zip(files))
    with pytest.raises(LedgerError, match=r"dropped|lacks"):
        open_sealed(tmp_path / "it.zip", FORM)


def test_an_added_file_is_noticed(sealed: Path, tmp_path: Path) -> None:
    files = read_container(sealed) | {"more.txt": b"trust me"}
    (tmp_path / "it.zip").write_bytes(to_zip(files))
    with pytest.raises(LedgerError, match="files were added to the bundle"):
        open_sealed(tmp_path / "it.zip", FORM)


def test_a_seal_of_another_key_is_refused_and_so_is_a_second_signature(
    sealed: Path, tmp_path: Path
) -> None:
    files = read_container(sealed)
    forger = new_signer("example.org/guard", seed=b"f" * 32)
    text = files[SEAL].decode().split("\n\n")[0] + "\n"
    line = sign(text, forger).split("\n\n")[1]
    for note in (sign(text, forger), files[SEAL].decode() + line):
        (tmp_path / "it.zip").write_bytes(to_zip({**files, SEAL: note.encode()}))
        with pytest.raises(LedgerError, match="has no valid signature"):
            open_sealed(tmp_path / "it.zip", FORM)


def test_only_the_pinned_key_will_do(tmp_path: Path) -> None:
    forger = new_signer("example.org/guard", seed=b"f" * 32)
    seal(tmp_path / "it", FILES, {"format": FORM}, forger)
    open_sealed(tmp_path / "it", FORM)
    with pytest.raises(LedgerError, match="is sealed with the key"):
        open_sealed(tmp_path / "it", FORM, SIGNER.public)


def test_a_bundle_of_another_kind_is_refused(sealed: Path) -> None:
    with pytest.raises(LedgerError, match="the bundle has the format 'limbeck-test/1'"):
        open_sealed(sealed, "limbeck-other/1")


def test_a_line_that_is_cut_off_or_spelt_otherwise_is_refused(tmp_path: Path) -> None:
    files = {"a": b'{"x":1}', "b": b'{"x": 1}\n'}
    seal(tmp_path / "it", files, {"format": FORM}, SIGNER)
    opened = open_sealed(tmp_path / "it", FORM)
    with pytest.raises(LedgerError, match="a ends in the middle of a line"):
        opened.rows("a")
    with pytest.raises(LedgerError, match="line 1 of b is not canonical JSON"):
        opened.values("b")
    with pytest.raises(LedgerError, match="the bundle lacks c"):
        opened.rows("c")
    assert canonical({"x": 1}) == files["a"]
