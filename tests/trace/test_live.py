"""Coins of a gateway are held against its ledger: what was added, dropped or edited since shows."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.errors import LedgerError, LimbeckError, TraceError
from limbeck.guard.coinage import Coinage, keeping
from limbeck.ledger.keys import Keys, create_keys
from limbeck.ledger.log import open_log
from limbeck.ledger.reading import read_log
from limbeck.ledger.record import Entry
from limbeck.trace.coins import Pair, toss
from limbeck.trace.live import Live, collect, read_live
from limbeck.trace.sealing import read_sealed
from limbeck.workbench import trace

KEY, BEACON = bytes(range(32)), "round 7"
ACCOUNTS = ("anna", "bert")


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard's folder after it tossed coins."""

    folder: Path
    keys: Keys

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger" / "ledger.db"

    @property
    def coins(self) -> Path:
        return self.folder / "coins.jsonl"

    def toss(self, count: int, start: int = 0, *, record: bool = True) -> str:
        """Toss as the keeper does: the coin into its file, its hash into the ledger; the checkpoint after it."""
        keep = keeping(self.coins, Coinage(_bit, _digest))
        with open_log(self.ledger, self.keys) as log:
            for n in range(start, start + count):
                pair = (f"Say {n}.", f"{n} it is", f"it is {n}", ACCOUNTS[n % 2])
                names = ("prompt", "y0", "y1", "account")
                digest = keep(dict(zip(names, pair, strict=True)) | {"served": _bit(*pair)})
                if record:
                    log.append([Entry("coin", pair[3], {"hash": digest})])
            return log.sign().checkpoint

    def read(self, **options: Any) -> Live:
        with read_log(self.ledger) as log:
            return read_live(self.coins, log, self.keys, **options)

    def change(self, change: Callable[[list[Any]], list[Any]]) -> None:
        rows = change([json.loads(line) for line in self.coins.read_text().splitlines()])
        self.coins.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _bit(*pair: str) -> int:
    return toss(KEY, BEACON, Pair(*pair).hash)


def _digest(*pair: str) -> str:
    return Pair(*pair).hash.hex()


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    folder = tmp_path / "guard"
    folder.mkdir()
    (folder / "guard.toml").write_text(f'[coins]\nshare = 0.1\nbeacon = "{BEACON}"\n')
    made = Guard(folder, create_keys(folder / "ledger", "tests"))
    made.toss(14)
    return made


def collected(live: Live, guard: Guard, out: Path, **given: Any) -> int:
    how: dict[str, Any] = {"key": KEY, "beacon": BEACON, "teacher": {"name": ""}} | given
    return collect(live, out, guard.keys, now=datetime(2026, 11, 24, tzinfo=UTC), **how)


def test_a_gateways_coins_become_a_folder_with_the_same_bits_in_the_ledgers_order(
    guard: Guard, tmp_path: Path
):
    live = guard.read()
    assert live.unrecorded == 0
    assert collected(live, guard, tmp_path / "coins") == 14
    sealed = read_sealed(tmp_path / "coins")
    assert sealed.coins == live.coins
    assert [c.pair.prompt for c in sealed.coins] == [f"Say {n}." for n in range(14)]


def test_the_command_makes_coins_that_an_audit_reads_and_whose_report_says_whom_they_convince(
    guard: Guard, tmp_path: Path, tiny_teacher_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LIMBECK_COIN_KEY", KEY.hex())
    out = tmp_path / "coins"
    done = CliRunner().invoke(app, ["trace", "collect", str(guard.folder), "--out", str(out)])
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert done.stdout.startswith("14 coins in ")
    report = trace(coins=out, suspect=tiny_teacher_folder, accounts=["anna"], weights="one")
    assert report["coins_at_hand"] == 7
    assert any("tossed while the gateway served" in warning for warning in report["warnings"])
    words = ["trace", "register", "--coins", str(out), "--beacon-source", "x", "--reference"]
    more = [str(tiny_teacher_folder), "--beacon-at", "2099-01-01T00:00:00Z"]
    keys = ["--keys", str(guard.folder / "ledger")]
    refused = CliRunner().invoke(app, [*words, *more, *keys])
    assert refused.exit_code != 0
    assert "its bits are known" in str(refused.exception)


def test_a_coin_added_late_is_left_out_and_counted(guard: Guard, tmp_path: Path):
    guard.toss(3, start=100, record=False)
    live = guard.read()
    assert (len(live.coins), live.unrecorded) == (14, 3)
    assert collected(live, guard, tmp_path / "coins") == 14


def test_a_dropped_coin_is_missed(guard: Guard):
    guard.change(lambda rows: rows[:3] + rows[4:])
    with pytest.raises(TraceError, match=r"the ledger recorded 1 coins that .* lacks"):
        guard.read()


def test_an_edited_coin_is_refused_with_its_old_hash_and_with_a_new_one(guard: Guard):
    guard.change(lambda rows: [{**rows[0], "y0": "edited"}, *rows[1:]])
    with pytest.raises(TraceError, match="line 1 was edited"):
        guard.read()
    new = _digest("Say 0.", "edited", "it is 0", "anna")
    guard.change(lambda rows: [{**rows[0], "hash": new}, *rows[1:]])
    with pytest.raises(TraceError, match="the ledger recorded 1 coins"):
        guard.read()


def test_a_coin_moved_to_another_account_is_missed(guard: Guard):
    moved = _digest("Say 0.", "0 it is", "it is 0", "bert")
    guard.change(lambda rows: [{**rows[0], "account": "bert", "hash": moved}, *rows[1:]])
    with pytest.raises(TraceError, match="the ledger recorded 1 coins"):
        guard.read()


def test_a_flipped_bit_or_another_key_or_beacon_is_refused(guard: Guard, tmp_path: Path):
    live = guard.read()
    for given in ({"key": bytes(32)}, {"beacon": "round 8"}):
        with pytest.raises(TraceError, match="a bit that this key and this beacon do not give"):
            collected(live, guard, tmp_path / "coins", **given)
    guard.change(lambda rows: [{**rows[0], "served": 1 - rows[0]["served"]}, *rows[1:]])
    with pytest.raises(TraceError, match="a bit that this key and this beacon do not give"):
        collected(guard.read(), guard, tmp_path / "coins")


def test_a_checkpoint_that_is_not_the_logs_and_a_log_that_was_cut_off_are_refused(
    guard: Guard, tmp_path: Path
):
    early = guard.toss(1, start=50)
    assert len(guard.read(known=[early]).coins) == 15
    other = Guard(tmp_path / "other", guard.keys)
    other.folder.mkdir()
    other.ledger.parent.mkdir()
    other.toss(2, start=200)
    with pytest.raises(LedgerError, match="is not of this ledger"):
        other.read(known=[early])
    foreign = other.toss(1, start=300)
    with pytest.raises(LedgerError, match="is not of this ledger"):
        guard.read(known=[foreign])
    stranger = Guard(tmp_path / "stranger", create_keys(tmp_path / "stranger" / "ledger", "else"))
    with pytest.raises(LimbeckError):
        guard.read(known=[stranger.toss(1)])


def test_a_prompt_that_an_account_asked_twice_counts_once(guard: Guard, tmp_path: Path):
    guard.toss(1)
    live = guard.read()
    assert len(live.coins) == 15
    assert collected(live, guard, tmp_path / "coins") == 14


def test_a_folder_without_coins_is_named(guard: Guard):
    guard.coins.unlink()
    with pytest.raises(TraceError, match=r"coins\.jsonl is missing"):
        guard.read()
