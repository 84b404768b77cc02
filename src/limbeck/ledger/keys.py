"""A ledger's keys on disk: the signing key and the secret behind pseudonyms, each a file that only its owner reads.

signing.key     PRIVATE+KEY+NAME+HEX+BASE64, the form of Go's note package
pseudonym.key   64 hexadecimal digits
public.txt      NAME+HEX+BASE64: give it to everyone who is to verify
"""

import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.errors import LedgerError
from limbeck.ledger.encoding import from_base64, to_base64
from limbeck.ledger.note import ED25519, Signer, new_signer

SIGNING, PSEUDONYM, PUBLIC = "signing.key", "pseudonym.key", "public.txt"
_PREFIX = "PRIVATE+KEY+"


@dataclass(frozen=True, slots=True)
class Keys:
    """What a writer needs."""

    signer: Signer
    secret: bytes = field(repr=False)
    """32 bytes; accounts' pseudonyms and keyed digests come of it."""


def new_keys(name: str) -> Keys:
    """Return fresh keys for the log of this name."""
    return Keys(new_signer(name), secrets.token_bytes(32))


def create_keys(folder: Path, name: str) -> Keys:
    """Make keys and write them into a folder; never over keys that are there.

    Raises:
        LedgerError: The folder holds keys, or the name cannot be one.
    """
    keys = new_keys(name)
    folder.mkdir(parents=True, exist_ok=True)
    for file in (SIGNING, PSEUDONYM):
        if (folder / file).exists():
            raise LedgerError(f"{folder / file} is there already; a key is never overwritten")
    seed = keys.signer.private.private_bytes_raw()
    public = keys.signer.public
    encoded = to_base64(bytes([ED25519]) + seed)
    _write_private(folder / SIGNING, f"{_PREFIX}{name}+{public.key_id.hex()}+{encoded}\n")
    _write_private(folder / PSEUDONYM, f"{keys.secret.hex()}\n")
    (folder / PUBLIC).write_text(f"{public}\n", encoding="utf-8")
    return keys


def read_keys(folder: Path) -> Keys:
    """Read the keys of a folder.

    Raises:
        LedgerError: They are missing, damaged, or other users may read them.
    """
    return Keys(_read_signer(folder / SIGNING), _read_secret(folder / PSEUDONYM))


def _read_signer(path: Path) -> Signer:
    text = _read_private(path)
    name, _, rest = text.removeprefix(_PREFIX).partition("+")
    digits, _, encoded = rest.partition("+")
    if not text.startswith(_PREFIX):
        raise LedgerError(f"{path} is not a signing key")
    data = from_base64(encoded, str(path))
    if len(data) != 33 or data[0] != ED25519:
        raise LedgerError(f"{path} is not an Ed25519 signing key")
    signer = new_signer(name, seed=data[1:])
    if signer.public.key_id.hex() != digits:
        raise LedgerError(f"{path} is damaged: its key id does not match its key")
    return signer


def _read_secret(path: Path) -> bytes:
    text = _read_private(path)
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise LedgerError(f"{path} must hold 64 hexadecimal digits")
    return secret


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read_private(path: Path) -> str:
    if not path.is_file():
        raise LedgerError(f"{path} is missing; `limbeck guard ledger keygen` makes keys")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise LedgerError(f"{path} may be read by others (mode {mode:04o}); run chmod 600 on it")
    return path.read_text(encoding="utf-8").strip()
