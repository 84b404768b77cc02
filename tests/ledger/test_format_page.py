"""A second verifier, written from docs/ledger-format.md and sharing nothing with the first, on the page's own example."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from limbeck.ledger.keys import Keys
from limbeck.ledger.log import open_log
from limbeck.ledger.note import new_signer
from limbeck.ledger.record import Entry

PAGE = (Path(__file__).parents[2] / "docs" / "ledger-format.md").read_text(encoding="utf-8")
OPENING = re.search(r"`([0-9a-f]{64})`:", PAGE)


def block(name: str) -> str:
    found = re.search(rf"```{name}\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found is not None, name
    return found.group(1)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def tree(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return sha(b"\0" + leaves[0])
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\1" + tree(leaves[:half]) + tree(leaves[half:]))


@pytest.fixture(scope="module")
def leaves() -> list[bytes]:
    return block("leaves").encode().splitlines()


def test_the_root_and_signature_of_the_checkpoint_are_those_of_the_leaves(
    leaves: list[bytes],
) -> None:
    name, digits, encoded = block("key").strip().split("+", 2)
    key = base64.b64decode(encoded)
    assert key[:1] == b"\1"
    text, _, line = block("checkpoint").partition("\n\n")
    origin, size, root, time = text.split("\n")
    assert (origin, size, time) == (name, "4", "time 2025-11-24T16:00:00.123Z")
    assert base64.b64decode(root) == tree(leaves)
    dash, signer, signature = line.split()
    raw = base64.b64decode(signature)
    assert (dash, signer, raw[:4].hex()) == ("—", name, digits)
    assert raw[:4] == sha(name.encode() + b"\n" + key)[:4]
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(raw[4:], f"{text}\n".encode())


def test_leaves_are_canonical_and_chained(leaves: list[bytes]) -> None:
    records = [json.loads(leaf) for leaf in leaves]
    for leaf, record in zip(leaves, records, strict=True):
        again = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert again.encode() == leaf
    assert [r["seq"] for r in records] == [0, 1, 2, 3]
    assert records[1]["account"] == records[2]["account"]
    assert records[2]["previous"] == sha(b"\0" + leaves[1]).hex()


def test_the_pseudonym_opens_to_bert(leaves: list[bytes]) -> None:
    assert OPENING is not None
    name = sha(b"limbeck pseudonym\n" + bytes.fromhex(OPENING.group(1)) + b"bert")[:16].hex()
    assert name == json.loads(leaves[1])["account"]


def test_the_path_leads_to_the_root(leaves: list[bytes]) -> None:
    proof = json.loads(block("proofs").splitlines()[0])
    one, two = (base64.b64decode(h) for h in proof["path"])
    node = sha(b"\1" + one + sha(b"\0" + leaves[proof["seq"]]))
    assert sha(b"\1" + node + two) == tree(leaves)


def test_the_heads_name_bert_s_two_records(leaves: list[bytes]) -> None:
    (shown,) = json.loads(block("proofs").splitlines()[1])
    entry = base64.b64decode(shown["entry"])
    assert entry[:16].hex() == json.loads(leaves[1])["account"]
    assert int.from_bytes(entry[16:24], "big") == 2
    assert entry[24:] == sha(b"\0" + leaves[2])
    (other,) = (base64.b64decode(h) for h in shown["path"])
    root = json.loads(leaves[3])["content"]["root"]
    assert sha(b"\1" + other + sha(b"\0" + entry)).hex() == root


def test_the_log_still_writes_the_example(leaves: list[bytes], tmp_path: Path) -> None:
    signer = new_signer("example.org/guard", seed=sha(b"example signing key"))
    decisions = [("anna", "allow", "default"), ("bert", "throttle", "pace")]
    entries = [Entry("decision", who, {"action": a, "clause": c}) for who, a, c in decisions]
    keys = Keys(signer, sha(b"example secret"))
    with open_log(tmp_path / "log.db", keys, clock=lambda: 1_764_000_000_123) as log:
        log.append(entries)
        log.append([Entry("appeal", "bert", {"text": "it was an evaluation"})])
        assert log.pin().checkpoint == block("checkpoint")
        assert list(log.reading.leaves(0, 4)) == leaves


def test_the_example_s_key_is_that_of_its_seed() -> None:
    private = Ed25519PrivateKey.from_private_bytes(sha(b"example signing key"))
    encoded = block("key").strip().split("+", 2)[2]
    assert private.public_key().public_bytes_raw() == base64.b64decode(encoded)[1:]


def test_every_command_of_the_page_is_one() -> None:
    from typer.testing import CliRunner

    from limbeck.cli import app

    commands: list[Any] = re.findall(r"^    limbeck ((?:[a-z]+ )+)", PAGE, flags=re.MULTILINE)
    assert len(commands) == 5
    for words in commands:
        assert CliRunner().invoke(app, [*words.split(), "--help"]).exit_code == 0, words
