"""Each attack on a bundle that the verifier must see through: by an outsider, and by an insider who has the key."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.errors import LedgerError
from limbeck.ledger.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from limbeck.ledger.container import to_zip
from limbeck.ledger.encoding import canonical
from limbeck.ledger.keys import new_keys
from limbeck.ledger.log import Log
from limbeck.ledger.merkle import leaf_hash
from limbeck.ledger.note import COSIGNATURE, cosign, new_signer
from limbeck.ledger.reading import read_log
from limbeck.ledger.record import read_leaf
from limbeck.ledger.sealed import seal
from limbeck.ledger.verify import verify_account
from smallledger import Forger, Ledger, decision, forge, rewritten, some_traffic

Attack = Callable[[Forger], None]


def test_an_untouched_bundle_verifies(ledger: Ledger, bundle: Path) -> None:
    found = verify_account(bundle, public_key=ledger.keys.signer.public)
    assert found.account == "anna"
    assert found.kinds == {"appeal": 1, "decision": 4}
    assert found.pinned
    assert [r.count for r in found.records] == [1, 2, 3, 4, 5]


def test_every_account_s_bundle_verifies(ledger: Ledger, tmp_path: Path) -> None:
    for name, records in {"anna": 5, "bert": 6, "carl": 6, "dora": 6}.items():
        found = verify_account(ledger.export(name, tmp_path / f"{name}.zip"))
        assert len(found.records) == records


# What an outsider, who lacks the key, may try: the seal breaks.


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_changed_anywhere_fails(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(bundle.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "b.zip").write_bytes(raw)
    with pytest.raises(LedgerError):
        verify_account(tmp_path / "b.zip")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_cut_out_fail(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    raw = bundle.read_bytes()
    start = data.draw(st.integers(0, len(raw) - 1))
    end = data.draw(st.integers(start + 1, len(raw)))
    (tmp_path / "b.zip").write_bytes(raw[:start] + raw[end:])
    with pytest.raises(LedgerError):
        verify_account(tmp_path / "b.zip")


def test_a_swapped_key_fails(bundle: Path, ledger: Ledger, tmp_path: Path) -> None:
    other = str(new_keys("example.org/guard").signer.public)

    def swap(files: dict[str, bytes]) -> None:
        about = json.loads(files["manifest.json"])
        files["manifest.json"] = canonical({**about, "public_key": other})

    with pytest.raises(LedgerError, match="was changed after"):
        verify_account(rewritten(bundle, tmp_path / "b.zip", swap))


def test_a_whole_ledger_under_another_key_fails_where_the_key_is_pinned(
    ledger: Ledger, tmp_path: Path
) -> None:
    forged = Ledger(tmp_path / "log.db")  # the same name, another key
    forged.write(some_traffic)
    out = forged.export("anna", tmp_path / "b.zip")
    assert not verify_account(out).pinned
    with pytest.raises(LedgerError, match="is sealed with the key"):
        verify_account(out, public_key=ledger.keys.signer.public)


# What an insider, who has the key and seals again, may try: the mathematics does not fit.


def _edit(forger: Forger, name: str, at: int, **changes: Any) -> None:
    rows = forger.rows(name)
    rows[at] = canonical({**json.loads(rows[at]), **changes})
    forger.put(name, rows)


def _rewrite(forger: Forger) -> None:
    _edit(forger, "records.jsonl", 2, content={"action": "block", "n": 5, "note": "x"})


def _rewrite_last(forger: Forger) -> None:
    _edit(forger, "records.jsonl", 4, content={"text": "I confess"})


def _drop_middle(forger: Forger) -> None:
    forger.put("records.jsonl", forger.rows("records.jsonl")[:2] + forger.rows("records.jsonl")[3:])


def _drop_end(forger: Forger) -> None:
    """Truncation: the newest record and its proof are left out; the chain alone would not show it."""
    rows = forger.rows("records.jsonl")
    seq = json.loads(rows[-1])["seq"]
    forger.put("records.jsonl", rows[:-1])
    forger.put(
        "proofs.jsonl", [p for p in forger.rows("proofs.jsonl") if json.loads(p)["seq"] != seq]
    )


def _reorder(forger: Forger) -> None:
    rows = forger.rows("records.jsonl")
    forger.put("records.jsonl", [rows[1], rows[0], *rows[2:]])


def _swap_proofs(forger: Forger) -> None:
    rows = [json.loads(p) for p in forger.rows("proofs.jsonl")]
    rows[0]["path"], rows[1]["path"] = rows[1]["path"], rows[0]["path"]
    forger.put("proofs.jsonl", [canonical(r) for r in rows])


def _older_state(forger: Forger) -> None:
    """Truncation of the whole log to an earlier checkpoint, whose pin does not close it."""
    rows = forger.rows("checkpoints.jsonl")[:-1]
    forger.put("checkpoints.jsonl", rows)
    forger.about["size"] = read_checkpoint(json.loads(rows[-1])["note"])[0].size


def _hide_pin(forger: Forger) -> None:
    """Leave out a pin that knows of more records than are shown."""
    forger.put("heads.jsonl", forger.rows("heads.jsonl")[:-1])


def _pin_of_another_time(forger: Forger) -> None:
    rows = forger.rows("heads.jsonl")
    forger.put("heads.jsonl", [rows[1], rows[1], *rows[2:]])


def _empty_pin(forger: Forger) -> None:
    rows = forger.rows("heads.jsonl")
    forger.put("heads.jsonl", [b"[]", *rows[1:]])


def _another_account(forger: Forger) -> None:
    forger.about["account"] = "bert"


def _another_opening(forger: Forger) -> None:
    forger.about["opening"] = "A" * 43 + "="


def _another_text(forger: Forger) -> None:
    _edit(forger, "texts.jsonl", 0, text="a prompt that was never sent")


def _no_checkpoints(forger: Forger) -> None:
    forger.files["checkpoints.jsonl"] = b""


def _drop_readme(forger: Forger) -> None:
    del forger.files["README.txt"]


def _add_file(forger: Forger) -> None:
    forger.files["notes.txt"] = b"trust me"


def _forged_signature(forger: Forger) -> None:
    other = new_keys("example.org/guard").signer
    rows = forger.rows("checkpoints.jsonl")
    last = json.loads(rows[-1])
    last["note"] = write_checkpoint(read_checkpoint(last["note"])[0], other)
    forger.put("checkpoints.jsonl", [*rows[:-1], canonical(last)])


def _resigned(forger: Forger, at: int, **changes: Any) -> None:
    """Sign another checkpoint in the place of one, with the real key."""
    rows = [json.loads(r) for r in forger.rows("checkpoints.jsonl")]
    old = read_checkpoint(rows[at]["note"])[0]
    rows[at]["note"] = write_checkpoint(replace(old, **changes), forger.keys.signer)
    forger.put("checkpoints.jsonl", [canonical(r) for r in rows])


def _fork(forger: Forger) -> None:
    _resigned(forger, 1, root=leaf_hash(b"another history"))


def _another_root(forger: Forger) -> None:
    _resigned(forger, -1, root=leaf_hash(b"another history"))


def _checkpoints_backwards(forger: Forger) -> None:
    _resigned(forger, -1, time=0)


INSIDER: dict[str, tuple[Attack, str]] = {
    "rewriting": (_rewrite, "does not follow|is not in the log"),
    "rewriting the newest": (_rewrite_last, "is not in the log that was signed"),
    "dropping": (_drop_middle, "one was dropped, added or moved"),
    "truncation": (_drop_end, "records were dropped"),
    "reordering": (_reorder, "one was dropped, added or moved"),
    "swapped proofs": (_swap_proofs, "is not in the log that was signed"),
    "an older state": (_older_state, "does not close the log|is not in the log"),
    "a hidden pin": (_hide_pin, "3 pins, but 2 proofs"),
    "a pin of another time": (_pin_of_another_time, "not in the tree of heads"),
    "an empty pin": (_empty_pin, "shows neither"),
    "another account": (_another_account, "is not that of the account 'bert'"),
    "another opening": (_another_opening, "is not that of the account 'anna'"),
    "another text": (_another_text, "is not the text that record"),
    "no checkpoints": (_no_checkpoints, "has no checkpoint"),
    "a dropped file": (_drop_readme, "lacks README.txt"),
    "an added file": (_add_file, "files that no bundle has: notes.txt"),
    "a forged signature": (_forged_signature, "no valid signature of example.org/guard"),
    "a fork": (_fork, "the log was rewritten or forked"),
    "another root": (_another_root, "the log was rewritten or forked"),
    "a checkpoint dated back": (_checkpoints_backwards, "before the one in front of it"),
}


@pytest.mark.parametrize("name", INSIDER)
def test_an_insider_s_attack_is_seen_through(
    name: str, ledger: Ledger, bundle: Path, tmp_path: Path
) -> None:
    attack, words = INSIDER[name]
    forger = forge(bundle, ledger.keys)
    verify_account(forger.sealed(tmp_path / "untouched.zip"))  # sealing again alone is no attack
    attack(forger)
    with pytest.raises(LedgerError, match=words):
        verify_account(forger.sealed(tmp_path / "b.zip"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_field_changed_by_an_insider_fails(
    ledger: Ledger, bundle: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Whatever JSON value of the evidence is changed and sealed again with the real key, something does not fit."""
    forger = forge(bundle, ledger.keys)
    name = data.draw(st.sampled_from(sorted(n for n in forger.files if n.endswith(".jsonl"))))
    rows = [json.loads(row) for row in forger.rows(name)]
    path = data.draw(st.sampled_from([p for r in range(len(rows)) for p in _paths(rows[r], (r,))]))
    holder: Any = rows
    for step in path[:-1]:
        holder = holder[step]
    old = holder[path[-1]]
    other = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=1)
    holder[path[-1]] = data.draw(other.filter(lambda v: canonical(v) != canonical(old)))
    forger.put(name, [canonical(row) for row in rows])
    with pytest.raises(LedgerError):
        verify_account(forger.sealed(tmp_path / "b.zip"))


def _paths(value: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        found += [p for k in value for p in _paths(value[k], (*path, k))]
    elif isinstance(value, list):
        found += [p for i in range(len(value)) for p in _paths(value[i], (*path, i))]
    return found


# What an insider may try on the log itself, before exporting.


def _another(ledger: Ledger, out: Path, change: Callable[[Log], object]) -> Ledger:
    """Another history under the same key."""
    path = out / "forged.db"
    forged = Ledger(path, ledger.keys)
    forged.clock.now = ledger.clock.now - 60_000
    forged.write(change)
    return forged


def test_splicing_records_of_another_log_fails(
    ledger: Ledger, bundle: Path, fresh: Ledger, tmp_path: Path
) -> None:
    fresh.keys = ledger.keys
    fresh.write(
        lambda log: (
            [log.append([decision("bert", i), decision("anna", i)]) for i in range(9)]
            and log.pin()
            and None
        )
    )
    other = forge(fresh.export("anna", tmp_path / "other.zip"), ledger.keys)
    forger = forge(bundle, ledger.keys)
    forger.put("records.jsonl", other.rows("records.jsonl")[:5])
    with pytest.raises(LedgerError, match=r"is not the proof|not in the log|but \d+ proofs"):
        verify_account(forger.sealed(tmp_path / "b.zip"))


def test_continuing_from_another_log_fails(
    ledger: Ledger, bundle: Path, fresh: Ledger, tmp_path: Path
) -> None:
    """The checkpoints of two logs in one chain."""
    fresh.keys = ledger.keys
    fresh.clock.now -= 60_000
    fresh.write(lambda log: [log.append([decision("anna", i)]) for i in range(3)])
    forger = forge(bundle, ledger.keys)
    rows = forger.rows("checkpoints.jsonl")
    first = json.loads(rows[0])
    alien = {**first, "note": fresh.checkpoint()}
    later = [r for r in rows if read_checkpoint(json.loads(r)["note"])[0].size > 3]
    forger.put("checkpoints.jsonl", [canonical(alien), *later])
    with pytest.raises(LedgerError, match="rewritten or forked"):
        verify_account(forger.sealed(tmp_path / "b.zip"))


def test_a_history_rewritten_with_the_key_does_not_go_on_from_a_checkpoint_seen_earlier(
    ledger: Ledger, tmp_path: Path
) -> None:
    """The strongest insider: a whole new log, sound in itself. Whoever kept an early checkpoint sees the fork."""
    seen = ledger.checkpoint()

    def other_history(log: Log) -> None:
        some_traffic(log)
        for i in range(20):
            log.append([decision("anna", i)])
        log.pin()

    forged = _another(ledger, tmp_path, other_history)
    out = forged.export("anna", tmp_path / "b.zip")
    verify_account(out, public_key=ledger.keys.signer.public)
    with pytest.raises(LedgerError, match="is not of this ledger"):
        forged.export("anna", tmp_path / "c.zip", known=[seen])
    with pytest.raises(LedgerError, match=r"no proof for the known checkpoint|was forked"):
        verify_account(out, known=[seen])


def test_two_checkpoints_of_one_size_prove_a_fork(ledger: Ledger, bundle: Path) -> None:
    mine = read_checkpoint(ledger.checkpoint())[0]
    other = Checkpoint(mine.origin, mine.size, leaf_hash(b"another history"), mine.time)
    with pytest.raises(LedgerError, match="signed two different logs of"):
        verify_account(bundle, known=[write_checkpoint(other, ledger.keys.signer)])


def test_a_known_checkpoint_must_be_signed_by_the_log(ledger: Ledger, bundle: Path) -> None:
    mine = read_checkpoint(ledger.checkpoint())[0]
    with pytest.raises(LedgerError, match=r"the known checkpoint at .* is not signed by"):
        verify_account(bundle, known=[write_checkpoint(mine, new_keys(mine.origin).signer)])


def _bert(log: Log) -> None:
    log.append([decision("bert", 1)])


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (some_traffic, "before the record in front of it"),
        (_bert, "does not have it yet"),
    ],
    ids=["after a record of its own", "after a checkpoint"],
)
def test_a_record_dated_back_in_the_log_fails(
    before: Callable[[Log], object], words: str, fresh: Ledger, tmp_path: Path, monkeypatch: Any
) -> None:
    """The insider's log writes an hour-old time into a new record, after checkpoints that lack it."""
    fresh.write(before)
    plain = Log._add  # pyright: ignore[reportPrivateUsage]

    def back_dating(self: Log, batch: Any, entry: Any, now: int, clock: int) -> None:
        plain(self, batch, entry, now - 3_600_000 if entry.account == "anna" else now, clock)

    monkeypatch.setattr(Log, "_add", back_dating)
    fresh.write(lambda log: log.append([decision("anna", 99)]) and log.pin())
    with pytest.raises(LedgerError, match=f"is dated back: .*{words}"):
        verify_account(fresh.export("anna", tmp_path / "b.zip"))


def test_a_record_dated_forward_in_the_log_fails(
    fresh: Ledger, tmp_path: Path, monkeypatch: Any
) -> None:
    plain = Log._add  # pyright: ignore[reportPrivateUsage]

    def dating(self: Log, batch: Any, entry: Any, now: int, clock: int) -> None:
        plain(self, batch, entry, now + 60_000 if entry.account == "anna" else now, clock)

    monkeypatch.setattr(Log, "_add", dating)
    fresh.write(lambda log: log.append([decision("anna", 99)]))
    fresh.clock.now += 120_000
    fresh.write(lambda log: log.pin())
    with pytest.raises(LedgerError, match="has it already"):
        verify_account(fresh.export("anna", tmp_path / "b.zip"))


def test_a_record_hidden_by_a_second_chain_is_found_by_the_pin_before_it(
    fresh: Ledger, tmp_path: Path
) -> None:
    """After a pin the insider forgets records and goes on counting from an earlier one."""
    fresh.write(some_traffic)

    def forget(log: Log) -> None:
        words = "SELECT pseudonym FROM account WHERE count = 5"
        db = log._db  # pyright: ignore[reportPrivateUsage]
        (name,) = db.execute(words).fetchone()
        first = log.reading.of_account(name, 99)[0]
        newest = leaf_hash(log.reading.leaf(first))
        row = (1, first, newest, name)
        db.execute("UPDATE account SET count = ?, seq = ?, newest = ? WHERE pseudonym = ?", row)
        log.append([decision("anna", 100)])
        log.pin()

    fresh.write(forget)
    with pytest.raises(LedgerError, match=r"says that the account had|not in the tree|shows"):
        verify_account(fresh.export("anna", tmp_path / "b.zip"))


# Witnesses.


def test_a_witness_says_when_it_saw_the_log(ledger: Ledger, tmp_path: Path) -> None:
    witness = new_signer("witness.example", kind=COSIGNATURE)
    note = ledger.checkpoint()
    seen = cosign(note, witness, read_checkpoint(note)[0].time // 1000 + 5)
    out = ledger.export("anna", tmp_path / "b.zip", known=[seen])
    found = verify_account(out, witnesses=[witness.public])
    assert found.witnessed == {"witness.example": read_checkpoint(note)[0].time // 1000 + 5}


def test_a_checkpoint_that_a_witness_saw_before_its_own_date_fails(
    ledger: Ledger, tmp_path: Path
) -> None:
    witness = new_signer("witness.example", kind=COSIGNATURE)
    note = ledger.checkpoint()
    seen = cosign(note, witness, read_checkpoint(note)[0].time // 1000 - 3600)
    out = ledger.export("anna", tmp_path / "b.zip", known=[seen])
    with pytest.raises(LedgerError, match=r"but witness.example saw it at"):
        verify_account(out, witnesses=[witness.public])


def test_a_wanted_witness_must_have_signed(bundle: Path) -> None:
    witness = new_signer("witness.example", kind=COSIGNATURE)
    with pytest.raises(LedgerError, match="no checkpoint has a valid signature of the witness"):
        verify_account(bundle, witnesses=[witness.public])


# Input that is no bundle at all.


@pytest.mark.parametrize(
    "about",
    [{}, {"account": 3}, {"size": "9"}, {"opening": 7}, {"pseudonym": None}],
)
def test_a_manifest_with_a_field_of_another_kind_is_refused(
    about: dict[str, Any], ledger: Ledger, bundle: Path, tmp_path: Path
) -> None:
    forger = forge(bundle, ledger.keys)
    forger.about = {"format": forger.about["format"]} if not about else {**forger.about, **about}
    with pytest.raises(LedgerError, match="the manifest"):
        verify_account(forger.sealed(tmp_path / "b.zip"))


def test_a_bundle_of_a_trace_or_of_nothing_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    seal(tmp_path / "b.zip", {}, {"format": "limbeck-trace-bundle/1"}, ledger.keys.signer)
    with pytest.raises(LedgerError, match="has the format 'limbeck-trace-bundle/1'"):
        verify_account(tmp_path / "b.zip")
    (tmp_path / "c.zip").write_bytes(to_zip({"a": b""}))
    with pytest.raises(LedgerError, match="is no bundle"):
        verify_account(tmp_path / "c.zip")


def test_a_folder_with_a_stray_file_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    out = ledger.export("anna", tmp_path / "anna")
    verify_account(out)
    shutil.copy(out / "README.txt", out / "README.bak")
    with pytest.raises(LedgerError, match="files were added"):
        verify_account(out)


def test_the_verifier_needs_the_standard_library_and_cryptography_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import limbeck.ledger.verify; "
        "found = {m.split('.')[0] for m in set(sys.modules) - before} - sys.stdlib_module_names; "
        "print(sorted(found - {'limbeck', 'cryptography', '_cffi_backend', '_openssl'}))"
    )
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "[]\n"


def test_records_are_what_the_log_has(ledger: Ledger, bundle: Path) -> None:
    with read_log(ledger.path) as log:
        for record in verify_account(bundle).records:
            assert read_leaf(log.leaf(record.seq)) == record
