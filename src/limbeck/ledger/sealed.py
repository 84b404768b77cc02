"""A sealed bundle: files, a manifest with the hash of each, and a signed note with the hash of the manifest."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import LedgerError
from limbeck.ledger.container import read_container, write_container
from limbeck.ledger.encoding import canonical, field, parse
from limbeck.ledger.note import PublicKey, Signer, is_signed, parse_key, parse_note, sign

MANIFEST, SEAL = "manifest.json", "manifest.sig"


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle whose every byte is what the owner of `key` sealed; nothing is said yet of what the files say."""

    about: Mapping[str, Any]
    """The manifest's facts."""
    files: Mapping[str, bytes]
    key: PublicKey

    def file(self, name: str) -> bytes:
        """Return a file that must be there.

        Raises:
            LedgerError: It is not.
        """
        if name not in self.files:
            raise LedgerError(f"the bundle lacks {name}")
        return self.files[name]

    def text(self, name: str) -> str:
        """Return a file that must be there, as text.

        Raises:
            LedgerError: It is not there, or not UTF-8.
        """
        try:
            return self.file(name).decode()
        except UnicodeDecodeError as error:
            raise LedgerError(f"{name} is not text in UTF-8") from error

    def rows(self, name: str) -> list[tuple[bytes, str]]:
        """Return the lines of a file, each with how to call it in a sentence."""
        data = self.file(name)
        if data and not data.endswith(b"\n"):
            raise LedgerError(f"{name} ends in the middle of a line")
        lines = data.split(b"\n")[:-1]
        return [(line, f"line {n} of {name}") for n, line in enumerate(lines, start=1)]

    def values(self, name: str) -> list[tuple[Any, str]]:
        """Return the lines of a file as JSON values, each with how to call it."""
        return [(parse(line, what), what) for line, what in self.rows(name)]


def seal(path: Path, files: Mapping[str, bytes], about: Mapping[str, Any], signer: Signer) -> None:
    """Write a sealed bundle to a zip's path or a folder's; see `sealed_files`."""
    write_container(path, sealed_files(files, about, signer))


def sealed_files(
    files: Mapping[str, bytes], about: Mapping[str, Any], signer: Signer
) -> dict[str, bytes]:
    """Return the files of a sealed bundle, manifest and seal among them.

    Args:
        files: By name.
        about: Facts for the manifest: JSON, with a `format`.
        signer: Whose seal it is.
    """
    hashed = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = canonical({**about, "files": hashed, "public_key": str(signer.public)})
    note = sign(_text(manifest), signer)
    return {**files, MANIFEST: manifest, SEAL: note.encode()}


def open_sealed(path: Path, form: str, pinned: PublicKey | None = None) -> Opened:
    """Read a sealed bundle and check that every byte is as it was sealed.

    Args:
        path: A zip or a folder.
        form: The `format` that the manifest must have.
        pinned: The key that must have sealed it; None takes the bundle's word for whose it is.

    Raises:
        LedgerError: A file was changed, added, dropped or swapped, or the seal is not valid.
    """
    return open_files(read_container(path), form, pinned, what=str(path))


def open_files(
    files: Mapping[str, bytes], form: str, pinned: PublicKey | None = None, *, what: str
) -> Opened:
    """Check a sealed bundle whose files are at hand, such as one inside another; `what` names it.

    Raises:
        LedgerError: As `open_sealed` does.
    """
    files = dict(files)
    if MANIFEST not in files or SEAL not in files:
        raise LedgerError(f"{what} is no bundle: it lacks {MANIFEST} or {SEAL}")
    manifest = files.pop(MANIFEST)
    about = parse(manifest, MANIFEST)
    key = parse_key(field(about, "public_key", str, MANIFEST))
    if pinned is not None and key != pinned:
        raise LedgerError(f"the bundle is sealed with the key {key}, not with {pinned}")
    _check_seal(manifest, files.pop(SEAL), key)
    if field(about, "format", str, MANIFEST) != form:
        raise LedgerError(f"the bundle has the format {about['format']!r}, not {form!r}")
    hashed = field(about, "files", dict, MANIFEST)
    if files.keys() != hashed.keys():
        odd = sorted(files.keys() ^ hashed.keys())
        raise LedgerError(f"files were added to the bundle or dropped from it: {', '.join(odd)}")
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != hashed[name]:
            raise LedgerError(f"{name} was changed after the bundle was sealed")
    return Opened(about, files, key)


def _check_seal(manifest: bytes, seal: bytes, key: PublicKey) -> None:
    try:
        note = parse_note(seal.decode())
    except UnicodeDecodeError as error:
        raise LedgerError(f"{SEAL} is not text") from error
    if note.text != _text(manifest):
        raise LedgerError(f"{MANIFEST} was changed after the bundle was sealed")
    if len(note.lines) != 1 or not is_signed(note, key):
        raise LedgerError(f"{SEAL} has no valid signature of {key.name}")


def _text(manifest: bytes) -> str:
    return f"limbeck bundle\nmanifest sha256 {hashlib.sha256(manifest).hexdigest()}\n"
