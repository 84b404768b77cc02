"""The pepper: one secret of the operator, under which keys and payment fingerprints are hashed."""

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.errors import StateError

PEPPER_VARIABLE = "LIMBECK_GUARD_PEPPER"
_BYTES = 32
_KEYS, _PAYMENT, _COOKIE, _MARK = b"limbeck:key", b"limbeck:pay", b"limbeck:cookie", b"limbeck:mark"


@dataclass(frozen=True, slots=True)
class Pepper:
    """Hashes under the secret, apart for each purpose; BLAKE2b, keyed."""

    secret: bytes = field(repr=False)
    _keyed: hashlib.blake2b = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keyed = hashlib.blake2b(key=self.secret, person=_KEYS, digest_size=32)
        object.__setattr__(self, "_keyed", keyed)

    def key(self, key: str) -> bytes:
        """Hash an API key; on every request's path, hence a copy of a state that has taken in the secret."""
        state = self._keyed.copy()
        state.update(key.encode("utf-8", "surrogatepass"))
        return state.digest()

    def payment(self, fingerprint: str) -> str:
        """Hash a payment fingerprint, so that the same card is known again and no card is stored."""
        return self._hash(_PAYMENT, fingerprint.strip().encode(), 16).hex()

    def cookie(self) -> str:
        """Derive the secret that signs the console's sessions."""
        return self._hash(_COOKIE, b"", 32).hex()

    def mark(self) -> str:
        """Return a mark by which a database knows its pepper again; it tells nothing about the secret."""
        return self._hash(_MARK, b"", 16).hex()

    def _hash(self, purpose: bytes, text: bytes, size: int) -> bytes:
        return hashlib.blake2b(text, key=self.secret, person=purpose, digest_size=size).digest()


def load_pepper(path: Path, environment: Mapping[str, str] = os.environ) -> Pepper:
    """Read the pepper from the environment, else from its file.

    Args:
        path: 64 hexadecimal digits, readable by the owner only.
        environment: `LIMBECK_GUARD_PEPPER` wins over the file.

    Raises:
        StateError: There is none, it is malformed, or others can read the file.
    """
    if text := environment.get(PEPPER_VARIABLE):
        return _parse(text, PEPPER_VARIABLE)
    if not path.is_file():
        raise StateError(
            f"there is no pepper at {path}: run limbeck guard init, or set {PEPPER_VARIABLE}"
        )
    if path.stat().st_mode & 0o077:
        raise StateError(f"{path} can be read by others: chmod 600 {path}")
    return _parse(path.read_text(encoding="ascii", errors="replace"), str(path))


def make_pepper(path: Path) -> Pepper:
    """Draw a pepper and write it for its owner only; one that is there stays."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return load_pepper(path, {})


def _parse(text: str, where: str) -> Pepper:
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) != _BYTES:
        raise StateError(f"{where} must hold {2 * _BYTES} hexadecimal digits")
    return Pepper(secret)
