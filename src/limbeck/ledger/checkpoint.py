"""A checkpoint: the size and root of a log at a moment, as a signed note in the format of C2SP tlog-checkpoint.

    ORIGIN
    SIZE
    BASE64(root)
    time 2026-11-24T13:35:20.123Z

The fourth line is an extension line of ours: the log's own clock when it signed. What a witness saw, and when, is in
the witness's line below.
"""

from dataclasses import dataclass

from limbeck.errors import LedgerError
from limbeck.ledger.encoding import from_time, hash32, to_base64, to_time
from limbeck.ledger.note import Note, PublicKey, Signer, is_signed, parse_note, sign

_TIME = "time "
_MAX_SIZE_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself."""

    origin: str
    """The log's name, which is its key's."""
    size: int
    """Records."""
    root: bytes
    """Over the first `size` leaves, 32 bytes."""
    time: int
    """Milliseconds since 1970, by the log's clock."""


def write_checkpoint(checkpoint: Checkpoint, signer: Signer) -> str:
    """Return the signed note of a checkpoint."""
    return sign(_spell(checkpoint), signer)


def read_checkpoint(text: str) -> tuple[Checkpoint, Note]:
    """Read a checkpoint without believing it.

    Raises:
        LedgerError: Not of the format.
    """
    note = parse_note(text)
    lines = note.text.split("\n")
    if len(lines) != 5 or not lines[3].startswith(_TIME):
        raise LedgerError("a checkpoint has four lines: origin, size, root and time")
    origin, size, root, time = lines[:4]
    if not (size.isascii() and size.isdigit() and len(size) <= _MAX_SIZE_DIGITS):
        raise LedgerError(f"a checkpoint's size must be a number, got {size[:40]!r}")
    moment = from_time(time.removeprefix(_TIME), "a checkpoint's time")
    checkpoint = Checkpoint(origin, int(size), hash32(root, "a checkpoint's root"), moment)
    if _spell(checkpoint) != note.text:
        raise LedgerError("a checkpoint is not spelt as the format wants it")
    return checkpoint, note


def verify_checkpoint(text: str, key: PublicKey) -> Checkpoint:
    """Return a checkpoint that this key signed.

    Raises:
        LedgerError: Not of the format, of another log, or not validly signed.
    """
    checkpoint, note = read_checkpoint(text)
    if checkpoint.origin != key.name:
        raise LedgerError(
            f"a checkpoint of {checkpoint.origin} stands where one of {key.name} belongs"
        )
    if not is_signed(note, key):
        raise LedgerError(
            f"the checkpoint at {checkpoint.size} records has no valid signature of {key.name} "
            f"with the key {key.key_id.hex()}"
        )
    return checkpoint


def _spell(checkpoint: Checkpoint) -> str:
    return (
        f"{checkpoint.origin}\n{checkpoint.size}\n{to_base64(checkpoint.root)}\n"
        f"{_TIME}{to_time(checkpoint.time)}\n"
    )
