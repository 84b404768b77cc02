"""Signed notes: text with signature lines below it, in the format of C2SP signed-note.

    the text, lines that end in a newline
                                              (an empty line)
    — NAME BASE64(key id, 4 bytes; signature)

A key id is the beginning of SHA-256(name, newline, type, public key), so a line says whose it claims to be. Lines of
unknown keys are kept and say nothing; that is where witnesses put theirs. Type 1 is Ed25519 over the text, type 4 a
witness's cosignature (C2SP tlog-cosignature): Ed25519 over the time at which it was seen, and the text.
"""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from limbeck.errors import LedgerError
from limbeck.ledger.encoding import from_base64, to_base64

ED25519, COSIGNATURE = 1, 4
_DASH = "— "


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A name with its Ed25519 public key; `kind` is `ED25519` or, for a witness, `COSIGNATURE`."""

    name: str
    raw: bytes
    kind: int = ED25519

    @property
    def key_id(self) -> bytes:
        """Return the 4 bytes that signature lines begin with."""
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([self.kind]) + self.raw).digest()[
            :4
        ]

    def __str__(self) -> str:
        """Return it as the verifier key `NAME+HEX+BASE64` of the format."""
        return f"{self.name}+{self.key_id.hex()}+{to_base64(bytes([self.kind]) + self.raw)}"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with the name that it signs under; never shown."""

    public: PublicKey
    private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"Signer({self.public.name})"


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One line below a note: who claims to have signed, with which key, and the bytes."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text with its signature lines, parsed and not yet believed."""

    text: str
    lines: tuple[SignatureLine, ...]


def new_signer(name: str, *, kind: int = ED25519, seed: bytes | None = None) -> Signer:
    """Return a signer with a fresh key, or the one of a seed of 32 bytes.

    Raises:
        LedgerError: A name that is empty or holds white space or a plus sign.
    """
    check_name(name)
    private = (
        Ed25519PrivateKey.generate() if seed is None else Ed25519PrivateKey.from_private_bytes(seed)
    )
    return Signer(PublicKey(name, private.public_key().public_bytes_raw(), kind), private)


def parse_key(text: str) -> PublicKey:
    """Read `NAME+HEX+BASE64`.

    Raises:
        LedgerError: It is not a verifier key, or its key id is not that of the key.
    """
    name, _, rest = text.strip().partition("+")
    digits, _, encoded = rest.partition("+")
    data = from_base64(encoded, "a public key")
    if len(data) != 33 or data[0] not in {ED25519, COSIGNATURE}:
        raise LedgerError(
            f"a public key looks like NAME+HEX+BASE64 with an Ed25519 key, got {text[:80]!r}"
        )
    check_name(name)
    key = PublicKey(name, data[1:], data[0])
    if key.key_id.hex() != digits:
        raise LedgerError(f"the public key of {name} has the id {key.key_id.hex()}, not {digits!r}")
    return key


def sign(text: str, signer: Signer) -> str:
    """Return a note: the text with this signer's line."""
    _check_text(text)
    signature = signer.private.sign(text.encode())
    return f"{text}\n{_line(signer.public, signature)}"


def cosign(note: str, witness: Signer, seconds: int) -> str:
    """Return the note with a witness's line more, which says that the witness saw it at this time.

    Args:
        note: A signed note; the witness must have checked it, and that it is consistent with what it saw before.
        witness: A signer of kind `COSIGNATURE`.
        seconds: The witness's own time, since 1970.
    """
    signature = witness.private.sign(_cosigned(parse_note(note).text, seconds))
    return note + _line(witness.public, seconds.to_bytes(8, "big") + signature)


def parse_note(note: str) -> Note:
    """Read a note without believing it.

    Raises:
        LedgerError: Not of the format, or spelt otherwise than this module would spell it.
    """
    text, gap, below = note.rpartition("\n\n")
    if not gap or not below:
        raise LedgerError("a signed note needs a text, an empty line and at least one signature")
    parsed = Note(text + "\n", tuple(_parse_line(line) for line in below.splitlines()))
    _check_text(parsed.text)
    again = "".join(_spell(line) for line in parsed.lines)
    if again != below:
        raise LedgerError("a signature line of a note is not spelt as the format wants it")
    return parsed


def is_signed(note: Note, key: PublicKey) -> bool:
    """Say whether a line of the note is a valid signature of this key."""
    return any(_is_valid(line.signature, note.text.encode(), key) for line in _lines_of(note, key))


def witnessed_at(note: Note, witness: PublicKey) -> int | None:
    """Return when a witness says it saw the note, in seconds since 1970; None if it does not say so validly."""
    for line in _lines_of(note, witness):
        seconds, signature = int.from_bytes(line.signature[:8], "big"), line.signature[8:]
        if _is_valid(signature, _cosigned(note.text, seconds), witness):
            return seconds
    return None


def check_name(name: str) -> None:
    """Check that a key's name can stand in a note: no white space and no plus sign.

    Raises:
        LedgerError: It cannot.
    """
    if not name or "+" in name or name != "".join(name.split()):
        raise LedgerError(
            f"a ledger's name must be without spaces and plus signs, such as example.org/guard, got {name!r}"
        )


def _lines_of(note: Note, key: PublicKey) -> list[SignatureLine]:
    return [line for line in note.lines if (line.name, line.key_id) == (key.name, key.key_id)]


def _is_valid(signature: bytes, message: bytes, key: PublicKey) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _cosigned(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _line(key: PublicKey, signature: bytes) -> str:
    return _spell(SignatureLine(key.name, key.key_id, signature))


def _spell(line: SignatureLine) -> str:
    return f"{_DASH}{line.name} {to_base64(line.key_id + line.signature)}\n"


def _parse_line(line: str) -> SignatureLine:
    name, space, encoded = line.removeprefix(_DASH).rpartition(" ")
    if not line.startswith(_DASH) or not space:
        raise LedgerError(f"a signature line looks like '— NAME BASE64', got {line[:80]!r}")
    data = from_base64(encoded, f"the signature of {name}")
    if len(data) < 5:
        raise LedgerError(f"the signature of {name} is too short: {len(data)} bytes")
    check_name(name)
    return SignatureLine(name, data[:4], data[4:])


def _check_text(text: str) -> None:
    """Refuse control characters, which the format bars: what is read on a screen must be what was signed."""
    if not text.endswith("\n") or any(ord(c) < 32 and c != "\n" for c in text):
        raise LedgerError("the text of a note must end in a newline and hold no control characters")
