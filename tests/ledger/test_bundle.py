import json
from pathlib import Path

import pytest

from limbeck.errors import LedgerError
from limbeck.ledger.checkpoint import read_checkpoint
from limbeck.ledger.container import read_container
from limbeck.ledger.log import Log
from limbeck.ledger.reading import read_log
from limbeck.ledger.verify import verify_account
from smallledger import START, Ledger, decision, some_traffic


def test_a_bundle_holds_the_account_s_records_and_nobody_else_s_names(bundle: Path) -> None:
    files = read_container(bundle)
    found = [json.loads(line) for line in files["records.jsonl"].splitlines()]
    assert [r["kind"] for r in found] == ["decision"] * 4 + ["appeal"]
    assert len({r["account"] for r in found}) == 1
    for name in ("bert", "carl", "dora"):
        assert name.encode() not in bundle.read_bytes()


def test_a_bundle_as_a_folder_verifies_too(ledger: Ledger, tmp_path: Path) -> None:
    out = ledger.export("anna", tmp_path / "anna")
    assert (out / "README.txt").read_text().startswith("EVIDENCE BUNDLE: ACCOUNT anna")
    assert len(verify_account(out).records) == 5


def test_records_after_the_last_pin_are_counted_and_left_out(fresh: Ledger, tmp_path: Path) -> None:
    from limbeck.ledger.bundle import export_account

    fresh.write(some_traffic)
    fresh.write(lambda log: log.append([decision("anna", 9)]))
    with read_log(fresh.path) as log:
        made = export_account(log, fresh.keys, "anna", tmp_path / "b.zip")
    assert (made.records, made.later) == (5, 1)
    assert len(verify_account(tmp_path / "b.zip").records) == 5


def test_raw_texts_are_in_only_when_wanted_and_not_after_a_purge(
    fresh: Ledger, tmp_path: Path
) -> None:
    fresh.write(some_traffic)
    text = b"a prompt that was kept"
    assert text not in fresh.export("anna", tmp_path / "1.zip").read_bytes()
    assert text in fresh.export("anna", tmp_path / "2.zip", texts=True).read_bytes()
    fresh.clock.now = START + 10**9

    def purge(log: Log) -> None:
        assert log.purge() == 1
        log.pin()

    fresh.write(purge)
    out = fresh.export("anna", tmp_path / "3.zip", texts=True)
    assert text not in out.read_bytes()
    assert len(verify_account(out).records) == 5


def test_an_account_without_records_has_no_bundle(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no record of the account 'emil'"):
        ledger.export("emil", tmp_path / "b.zip")


def test_a_log_without_a_pin_has_no_bundle(fresh: Ledger, tmp_path: Path) -> None:
    fresh.write(lambda log: log.append([decision("anna", 1)]))
    with pytest.raises(LedgerError, match="has no pin yet"):
        fresh.export("anna", tmp_path / "b.zip")


def test_a_known_checkpoint_is_bound_to_the_bundle(fresh: Ledger, tmp_path: Path) -> None:
    fresh.write(lambda log: [log.append([decision("anna", i)]) for i in range(3)])
    early = fresh.checkpoint()
    fresh.write(some_traffic)
    out = fresh.export("anna", tmp_path / "b.zip", known=[early])
    assert verify_account(out, known=[early]).known == 1
    assert read_checkpoint(early)[0].size == 3


def test_a_checkpoint_of_another_log_is_not_bound(
    fresh: Ledger, ledger: Ledger, tmp_path: Path
) -> None:
    fresh.write(some_traffic)
    with pytest.raises(LedgerError, match="is not of this ledger"):
        fresh.export("anna", tmp_path / "b.zip", known=[ledger.checkpoint()])


def test_very_many_checkpoints_are_thinned(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = verify_account(ledger.export("anna", tmp_path / "1.zip"))
    monkeypatch.setattr("limbeck.ledger.bundle._MOST_CHECKPOINTS", 2)
    few = verify_account(ledger.export("anna", tmp_path / "2.zip"))
    assert few.checkpoints <= 3 < many.checkpoints
    assert few.records == many.records
