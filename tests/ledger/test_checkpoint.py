import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import LedgerError
from limbeck.ledger.checkpoint import (
    Checkpoint,
    read_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from limbeck.ledger.merkle import leaf_hash
from limbeck.ledger.note import new_signer, sign

SIGNER = new_signer("example.org/guard", seed=bytes(32))
ROOT = leaf_hash(b"x")


@given(st.integers(0, 10**15), st.binary(min_size=32, max_size=32), st.integers(0, 10**13))
def test_a_checkpoint_reads_back(size: int, root: bytes, time: int) -> None:
    checkpoint = Checkpoint(SIGNER.public.name, size, root, time)
    note = write_checkpoint(checkpoint, SIGNER)
    assert verify_checkpoint(note, SIGNER.public) == checkpoint


def test_its_text_is_what_the_format_says() -> None:
    note = write_checkpoint(Checkpoint("example.org/guard", 7, ROOT, 1_764_000_000_123), SIGNER)
    text, below = note.split("\n\n")
    root = base64.b64encode(ROOT).decode()
    assert text == f"example.org/guard\n7\n{root}\ntime 2025-11-24T16:00:00.123Z"
    assert below.startswith("— example.org/guard ")


@pytest.mark.parametrize(
    "change",
    [
        ("\n7\n", "\n07\n"),
        ("\n7\n", "\n-7\n"),
        ("\n7\n", "\n٧\n"),
        ("time ", "Time "),
        (".123Z", ".1230Z"),
        ("\n7\n", "\n7\n\n"),
    ],
)
def test_another_spelling_is_refused_even_when_it_is_signed(change: tuple[str, str]) -> None:
    note = write_checkpoint(Checkpoint("example.org/guard", 7, ROOT, 1_764_000_000_123), SIGNER)
    text = note.split("\n\n")[0] + "\n"
    with pytest.raises(LedgerError):
        read_checkpoint(sign(text.replace(*change), SIGNER))


def test_a_checkpoint_of_another_log_is_refused() -> None:
    other = new_signer("example.org/other", seed=bytes(32))
    note = write_checkpoint(Checkpoint("example.org/other", 7, ROOT, 0), other)
    with pytest.raises(LedgerError, match=r"of example.org/other stands where"):
        verify_checkpoint(note, SIGNER.public)


def test_a_checkpoint_that_another_key_signed_is_refused() -> None:
    forger = new_signer("example.org/guard", seed=b"f" * 32)
    note = write_checkpoint(Checkpoint("example.org/guard", 7, ROOT, 0), forger)
    with pytest.raises(LedgerError, match=r"has no valid signature of example.org/guard"):
        verify_checkpoint(note, SIGNER.public)
