"""Named files as one zip or as a folder, with one spelling only.

A zip has fields that readers pass over: dates, comments, attributes, a second copy of each name. Here they all have fixed
values, files are stored uncompressed and sorted by name, and what is read is refused unless writing it again gives the
same bytes; so not one byte of the archive can be changed unnoticed. Any unzip program reads it.
"""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from limbeck.artefact import write_bytes
from limbeck.errors import LedgerError

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_VERSION, _DATE = 20, 33  # 1980-01-01, the first day that a zip can name
_MAX_FILES, _MAX_BYTES = 10_000, 0xFFFF_FFFF
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def write_container(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files as a zip if the path ends in `.zip`, else as a new folder.

    Raises:
        LedgerError: Names that are not plain, too much for a zip, or a folder that holds something.
    """
    for name in files:
        _check_name(name)
    if path.suffix == ".zip":
        write_bytes(path, to_zip(files))
        return
    if path.is_dir() and any(path.iterdir()):
        raise LedgerError(f"{path} holds files already; name a new folder or one that is empty")
    for name, data in files.items():
        write_bytes(path / name, data)


def read_container(path: Path) -> dict[str, bytes]:
    """Read what `write_container` wrote.

    Raises:
        LedgerError: Nothing is there, or it is not a zip or a folder of this form.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise LedgerError(f"{path} is no bundle: there is no such file or folder")
    return from_zip(path.read_bytes())


def to_zip(files: Mapping[str, bytes]) -> bytes:
    """Return files as the bytes of a zip, always the same for the same files."""
    body, directory, place = [], [], 0
    for name in sorted(files):
        data, raw = files[name], name.encode()
        facts = struct.pack(
            "<HHHHHLLLHH", _VERSION, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(raw), 0
        )  # fmt: skip
        body += [_LOCAL, facts, raw, data]
        ends = struct.pack("<HHHLL", 0, 0, 0, 0, place)
        directory += [_CENTRAL, struct.pack("<H", _VERSION), facts, ends, raw]
        place += len(_LOCAL) + len(facts) + len(raw) + len(data)
    listed = b"".join(directory)
    if len(files) > _MAX_FILES or place + len(listed) > _MAX_BYTES:
        raise LedgerError(
            "a bundle of more than 4 GB does not fit into a zip; write it as a folder"
        )
    end = struct.pack("<HHHHLLH", 0, 0, len(files), len(files), len(listed), place, 0)
    return b"".join([*body, listed, _END, end])


def from_zip(data: bytes) -> dict[str, bytes]:
    """Return the files of a zip that `to_zip` made.

    Raises:
        LedgerError: It has a byte that `to_zip` would not have written.
    """
    files: dict[str, bytes] = {}
    try:
        at = 0
        while data[at : at + 4] == _LOCAL:
            size, names = struct.unpack_from("<LH", data, at + 22)
            start = at + 30 + names
            name = data[at + 30 : start].decode()
            _check_name(name)
            files[name] = data[start : start + size]
            at = start + size
        same = to_zip(files) == data
    except (struct.error, UnicodeDecodeError) as error:
        raise LedgerError(f"the bundle's archive is damaged: {error}") from error
    if not files or not same:
        raise LedgerError("the bundle's archive is damaged or was packed again by another program")
    return files


def _read_folder(path: Path) -> dict[str, bytes]:
    files = {}
    for entry in sorted(path.iterdir()):
        if entry.is_symlink() or not entry.is_file():
            raise LedgerError(f"{entry} does not belong into a bundle, which holds files only")
        files[entry.name] = entry.read_bytes()
    return files


def _check_name(name: str) -> None:
    if not name or not set(name) <= _LETTERS or name[0] == ".":
        raise LedgerError(
            f"a file in a bundle is named with letters, digits, dots and dashes, got {name!r}"
        )
