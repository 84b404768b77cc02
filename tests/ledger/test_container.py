import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import LedgerError
from limbeck.ledger.container import from_zip, read_container, to_zip, write_container

NAMES = st.text("abcXYZ019-_", min_size=1, max_size=8)
FILES = st.dictionaries(NAMES, st.binary(max_size=60), min_size=1, max_size=5)


@given(FILES)
def test_other_programs_read_the_archive(files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(to_zip(files))) as archive:
        assert archive.testzip() is None
        assert {n: archive.read(n) for n in archive.namelist()} == files


@given(FILES)
def test_an_archive_reads_back(files: dict[str, bytes]) -> None:
    assert from_zip(to_zip(files)) == files


@given(FILES, st.data())
def test_no_byte_of_an_archive_can_be_changed_but_a_file_s_own(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    raw = bytearray(to_zip(files))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(LedgerError):
        from_zip(bytes(raw))


@given(FILES, st.data())
def test_no_part_of_an_archive_can_be_cut_off_or_added(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    raw = to_zip(files)
    at = data.draw(st.integers(0, len(raw) - 1))
    for other in (raw[:at], raw[at + 1 :] or b"x", raw + b"x", b"x" + raw):
        with pytest.raises(LedgerError):
            from_zip(other)


def test_an_archive_that_was_packed_again_is_refused() -> None:
    again = io.BytesIO()
    with zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "the same content " * 9)
    with pytest.raises(LedgerError, match="packed again by another program"):
        from_zip(again.getvalue())


@pytest.mark.parametrize("kind", ["it.zip", "it"])
def test_a_container_reads_back_as_zip_and_as_folder(tmp_path: Path, kind: str) -> None:
    files = {"a.txt": b"one", "b.jsonl": b""}
    write_container(tmp_path / kind, files)
    assert read_container(tmp_path / kind) == files


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "ü", "a b"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LedgerError, match="a file in a bundle is named"):
        write_container(tmp_path / "it", {name: b""})


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(LedgerError, match="holds files already"):
        write_container(tmp_path, {"a.txt": b""})


def test_a_link_or_a_folder_does_not_belong_into_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to("/etc/hostname")
    with pytest.raises(LedgerError, match="does not belong into a bundle"):
        read_container(tmp_path)


def test_a_path_without_a_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no such file or folder"):
        read_container(tmp_path / "none.zip")
