"""The commands, each run as a user runs it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from limbeck.cli import app
from limbeck.errors import LedgerError
from limbeck.ledger.keys import read_keys
from limbeck.ledger.log import open_log
from smallledger import decision, some_traffic

RUN = CliRunner()


def run(*words: object) -> Result:
    return RUN.invoke(app, ["guard", *map(str, words)])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = run("ledger", "keygen", "example.org/guard", "--keys", tmp_path / "keys")
    assert made.exit_code == 0, made.output
    with open_log(tmp_path / "log.db", read_keys(tmp_path / "keys")) as log:
        some_traffic(log)
        log.append([decision("anna", 7)])
    return tmp_path


def export(place: Path, *more: object) -> Result:
    words = ("--keys", place / "keys", "--out", place / "b.zip", *more)
    return run("ledger", "export", place / "log.db", "anna", *words)


def test_a_bundle_is_exported_with_everything_up_to_now_and_verified(place: Path) -> None:
    made = export(place)
    assert made.exit_code == 0, made.output
    assert "6 records, complete up to" in made.output
    found = run("verify", place / "b.zip", "--public-key", place / "keys" / "public.txt")
    assert found.exit_code == 0
    assert found.output.startswith("VERIFIED\n")
    assert "6 (1 appeal, 5 decision)" in found.output


def test_a_changed_bundle_is_one_sentence_and_an_error(place: Path) -> None:
    export(place)
    raw = bytearray((place / "b.zip").read_bytes())
    raw[len(raw) // 2] ^= 1
    (place / "b.zip").write_bytes(raw)
    found = run("verify", place / "b.zip")
    assert found.exit_code != 0
    assert isinstance(found.exception, LedgerError)


def test_without_a_pinned_key_the_reader_is_told_so(place: Path) -> None:
    export(place)
    assert "the key came with the bundle" in run("verify", place / "b.zip").stderr


def test_a_checkpoint_is_printed_kept_and_known_again(place: Path) -> None:
    printed = run("ledger", "checkpoint", place / "log.db")
    (place / "early.txt").write_text(printed.stdout, encoding="utf-8")
    with open_log(place / "log.db", read_keys(place / "keys")) as log:
        log.append([decision("anna", 8)])
    assert (
        run("ledger", "checkpoint", place / "log.db", "--since", place / "early.txt").exit_code == 0
    )
    export(place, "--known", place / "early.txt", "--texts")
    found = run("verify", place / "b.zip", "--known", place / "early.txt")
    assert "goes on from 1 checkpoints that you gave" in found.output


def test_a_forked_log_does_not_go_on_from_an_earlier_checkpoint(place: Path) -> None:
    keys = read_keys(place / "keys")
    with open_log(place / "other.db", keys) as log:
        some_traffic(log)
    early = run("ledger", "checkpoint", place / "other.db")
    (place / "early.txt").write_text(early.stdout, encoding="utf-8")
    found = run("ledger", "checkpoint", place / "log.db", "--since", place / "early.txt")
    assert isinstance(found.exception, LedgerError)
    assert "does not go on from the checkpoint" in str(found.exception)


def test_info_counts_and_audits(place: Path) -> None:
    found = run("ledger", "info", place / "log.db", "--audit")
    assert found.exit_code == 0
    words = dict(line.split(maxsplit=1) for line in found.output.splitlines()[1:])
    assert (words["records"], words["accounts"], words["pins"]) == ("28", "4", "3")
    assert words["audit"].startswith("sound: 28 records")


def test_export_works_beside_a_running_writer_up_to_its_last_pin(place: Path) -> None:
    with open_log(place / "log.db", read_keys(place / "keys")):
        made = export(place)
    assert made.exit_code == 0, made.output
    assert "5 records, complete up to" in made.output
    assert "1 newer records of the ledger wait" in made.stderr
    assert run("verify", place / "b.zip").exit_code == 0


def test_purging_says_how_many_texts_went(place: Path) -> None:
    found = run("ledger", "purge", place / "log.db", "--keys", place / "keys")
    assert found.exit_code == 0, found.output
    assert found.output.startswith("1 raw texts removed")  # kept until a moment in 2025
    assert run("ledger", "info", place / "log.db", "--audit").exit_code == 0


def test_a_mistyped_path_is_an_error_and_becomes_no_ledger(place: Path) -> None:
    words = ("--keys", place / "keys", "--out", place / "b.zip")
    found = run("ledger", "export", place / "lag.db", "anna", *words)
    assert isinstance(found.exception, LedgerError)
    assert not (place / "lag.db").exists()


def test_the_keys_of_another_ledger_are_refused(place: Path) -> None:
    run("ledger", "keygen", "example.org/guard", "--keys", place / "others")
    words = ("--keys", place / "others", "--out", place / "b.zip")
    found = run("ledger", "export", place / "log.db", "anna", *words)
    assert isinstance(found.exception, LedgerError)


def test_an_account_s_name_cannot_move_the_cursor(place: Path) -> None:
    name = "\x1b[2Janna"
    with open_log(place / "log.db", read_keys(place / "keys")) as log:
        log.append([decision(name, 1)])
    words = ("--keys", place / "keys", "--out", place / "b.zip")
    assert run("ledger", "export", place / "log.db", name, *words).exit_code == 0
    found = run("verify", place / "b.zip")
    assert "\x1b" not in found.output
    assert r"\x1b[2Janna" in found.output
