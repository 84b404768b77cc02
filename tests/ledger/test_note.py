import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import LedgerError
from limbeck.ledger.note import (
    COSIGNATURE,
    PublicKey,
    cosign,
    is_signed,
    new_signer,
    parse_key,
    parse_note,
    sign,
    witnessed_at,
)

# golang.org/x/mod/sumdb/note, note_test.go: PeterNeumann signs a sentence.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE = (
    GO_TEXT
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SIGNER = new_signer("example.org/guard", seed=bytes(32))
TEXT = "one\ntwo\n"


def test_a_note_of_gos_own_package_verifies() -> None:
    key = parse_key(GO_KEY)
    assert str(key) == GO_KEY
    assert is_signed(parse_note(GO_NOTE), key)
    assert not is_signed(parse_note(GO_NOTE.replace("answer", "Answer")), key)


@given(st.data())
def test_no_byte_of_a_note_can_be_changed(data: st.DataObject) -> None:
    raw = sign(TEXT, SIGNER).encode()
    at = data.draw(st.integers(0, len(raw) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda b: b != raw[at]))
    try:
        note = parse_note((raw[:at] + bytes([other]) + raw[at + 1 :]).decode())
    except (LedgerError, UnicodeDecodeError):
        return
    assert not is_signed(note, SIGNER.public)


def test_a_line_of_another_key_or_name_says_nothing() -> None:
    note = parse_note(sign(TEXT, SIGNER))
    assert is_signed(note, SIGNER.public)
    assert not is_signed(note, new_signer(SIGNER.public.name, seed=b"1" * 32).public)
    assert not is_signed(note, new_signer("example.org/other", seed=bytes(32)).public)


def test_a_witness_says_when_it_saw_a_note_and_the_owner_s_line_stays_valid() -> None:
    witness = new_signer("witness.example", kind=COSIGNATURE)
    note = parse_note(cosign(sign(TEXT, SIGNER), witness, 1_764_000_000))
    assert is_signed(note, SIGNER.public)
    assert witnessed_at(note, witness.public) == 1_764_000_000


def test_a_witness_s_line_holds_for_its_text_and_its_time_only() -> None:
    witness = new_signer("witness.example", kind=COSIGNATURE)
    note = cosign(sign(TEXT, SIGNER), witness, 1_764_000_000)
    assert witnessed_at(parse_note(note.replace("two", "too")), witness.public) is None
    assert witnessed_at(parse_note(sign(TEXT, SIGNER)), witness.public) is None
    other = cosign(sign(TEXT, SIGNER), new_signer("witness.example", kind=COSIGNATURE), 1)
    assert witnessed_at(parse_note(other), witness.public) is None


def test_a_plain_signature_cannot_pose_as_a_cosignature() -> None:
    key = SIGNER.public
    note = parse_note(sign(TEXT, SIGNER))
    assert witnessed_at(note, PublicKey(key.name, key.raw, COSIGNATURE)) is None


def test_a_key_reads_back() -> None:
    assert parse_key(f"{SIGNER.public}\n") == SIGNER.public


@pytest.mark.parametrize(
    "text",
    ["", "a+b", "a+00000000+AAAA", str(SIGNER.public).replace("guard", "Guard"), str(SIGNER.public) + "+x"],
)  # fmt: skip
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(LedgerError):
        parse_key(text)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "tab\t", "line\n"])
def test_a_name_that_could_break_a_note_is_refused(name: str) -> None:
    with pytest.raises(LedgerError, match="without spaces and plus signs"):
        new_signer(name)


@pytest.mark.parametrize(
    "text", ["", "text", "text\n", "text\n\n", "text\n\n- a QUFBQUFB\n", "text\n\n— a QUFB\n"]
)
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(LedgerError):
        parse_note(text)


@pytest.mark.parametrize("text", ["no newline", "bell\a\n", "return\r\n"])
def test_a_text_that_shows_otherwise_than_it_is_signed_is_refused(text: str) -> None:
    with pytest.raises(LedgerError, match="control characters"):
        sign(text, SIGNER)


def test_a_signer_does_not_show_its_key() -> None:
    assert repr(SIGNER) == "Signer(example.org/guard)"
