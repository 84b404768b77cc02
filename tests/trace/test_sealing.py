"""A folder of coins is what was signed, or it is refused."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import TraceError
from limbeck.ledger.note import new_signer
from limbeck.trace.coins import Pair, usable
from limbeck.trace.sealing import COINS, COMMITMENT, KEY, PAIRS, Beacon, commit, read_sealed, seal

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SIGNER = new_signer("tests", seed=bytes(32))
PAIRS_MADE = usable([Pair(f"prompt {i}", f"a{i}", f"b{i}", "xy"[i % 2]) for i in range(20)])
LATER = Beacon("round 12: 9f", NOW + timedelta(minutes=5))


def sealed(folder: Path, beacon: Beacon | None = LATER) -> Path:
    commit(folder, PAIRS_MADE, SIGNER, teacher={"name": "t"}, now=NOW, key=bytes(range(32)))
    seal(folder, SIGNER, beacon)
    return folder


def test_what_was_sealed_is_read_back_and_every_bit_checked(tmp_path: Path):
    found = read_sealed(sealed(tmp_path / "c"))
    assert [c.pair for c in found.coins] == list(PAIRS_MADE.pairs)
    assert found.key == bytes(range(32))
    assert found.beacon == LATER
    assert found.committed.created == NOW
    assert {c.pair.account for c in found.of(["x"])} == {"x"}
    assert not (tmp_path / "c" / PAIRS).exists()


def test_the_key_is_for_its_owner_alone_and_shows_in_no_repr(tmp_path: Path):
    folder = sealed(tmp_path / "c")
    assert (folder / KEY).stat().st_mode & 0o077 == 0
    assert bytes(range(32)).hex() not in (folder / COMMITMENT).read_text()
    assert repr(bytes(range(32))) not in repr(read_sealed(folder))


def test_the_commitment_stands_before_a_bit_is_tossed(tmp_path: Path):
    commit(tmp_path, PAIRS_MADE, SIGNER, teacher={}, now=NOW)
    assert not (tmp_path / COINS).exists()
    with pytest.raises(TraceError, match="not sealed yet"):
        read_sealed(tmp_path)


@pytest.mark.parametrize("minutes", [-5, 0])
def test_a_beacon_from_before_the_commitment_is_refused(tmp_path: Path, minutes: int):
    commit(tmp_path, PAIRS_MADE, SIGNER, teacher={}, now=NOW)
    with pytest.raises(TraceError, match="was public before the commitment"):
        seal(tmp_path, SIGNER, Beacon("early", NOW + timedelta(minutes=minutes)))
    assert not (tmp_path / COINS).exists()


def test_without_a_beacon_the_key_alone_decides_and_the_file_says_so(tmp_path: Path):
    found = read_sealed(sealed(tmp_path / "c", None))
    assert found.beacon.value == ""
    assert json.loads((tmp_path / "c" / COMMITMENT).read_text())["beacon"] is None


def test_another_beacon_gives_other_bits(tmp_path: Path):
    one = read_sealed(sealed(tmp_path / "1"))
    two = read_sealed(sealed(tmp_path / "2", Beacon("other", LATER.time)))
    assert [c.bit for c in one.coins] != [c.bit for c in two.coins]


def _lines(folder: Path) -> list[str]:
    return (folder / COINS).read_text().splitlines()


def _write(folder: Path, lines: list[str]) -> None:
    (folder / COINS).write_text("".join(f"{line}\n" for line in lines))


def flip(folder: Path) -> None:
    lines = _lines(folder)
    row = json.loads(lines[0])
    _write(folder, [json.dumps(row | {"served": 1 - row["served"]}), *lines[1:]])


def drop(folder: Path) -> None:
    _write(folder, _lines(folder)[:-1])


def reorder(folder: Path) -> None:
    _write(folder, _lines(folder)[::-1])


def add(folder: Path) -> None:
    other = sealed(folder.parent / "other", Beacon("x", LATER.time))
    _write(folder, [*_lines(folder), _lines(other)[0]])


def another_key(folder: Path) -> None:
    (folder / KEY).write_text(bytes(32).hex())


def another_root(folder: Path) -> None:
    values = json.loads((folder / COMMITMENT).read_text())
    note = values["sealed"].replace('"coins":20', '"coins":21')
    assert note != values["sealed"]
    (folder / COMMITMENT).write_text(json.dumps(values | {"sealed": note}))


def another_commitment(folder: Path) -> None:
    commit(folder.parent / "o", PAIRS_MADE, SIGNER, teacher={}, now=NOW, key=bytes(range(32)))
    values = json.loads((folder / COMMITMENT).read_text())
    other: dict[str, Any] = json.loads((folder.parent / "o" / COMMITMENT).read_text())
    (folder / COMMITMENT).write_text(json.dumps(values | {"committed": other["committed"]}))


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (flip, "does not match its commitment"),
        (drop, "does not match its commitment"),
        (reorder, "does not match its commitment"),
        (add, "does not match its commitment"),
        (another_key, "not the key that was committed to"),
        (another_root, "is not signed by tests"),
        (another_commitment, "two commitments"),
    ],
)
def test_tampering_is_refused(tmp_path: Path, attack: Callable[[Path], None], said: str):
    folder = sealed(tmp_path / "c")
    attack(folder)
    with pytest.raises(TraceError, match=said):
        read_sealed(folder)


def test_coins_are_sealed_once(tmp_path: Path):
    folder = sealed(tmp_path / "c")
    with pytest.raises(TraceError, match="sealed already"):
        seal(folder, SIGNER, LATER)
    with pytest.raises(TraceError, match="never written again"):
        commit(folder, PAIRS_MADE, SIGNER, teacher={}, now=NOW)


def test_who_seals_is_who_committed(tmp_path: Path):
    commit(tmp_path, PAIRS_MADE, SIGNER, teacher={}, now=NOW)
    with pytest.raises(TraceError, match="not with this key"):
        seal(tmp_path, new_signer("somebody"), LATER)


def test_an_account_without_coins_is_named(tmp_path: Path):
    with pytest.raises(TraceError, match=r"'z' has no coin; coins belong to 'x', 'y'"):
        read_sealed(sealed(tmp_path / "c")).of(["z"])


def test_without_a_usable_pair_nothing_is_committed_to(tmp_path: Path):
    with pytest.raises(TraceError, match="1 had equal answers"):
        commit(tmp_path, usable([Pair("p", "a", "a")]), SIGNER, teacher={}, now=NOW)


def test_a_folder_that_is_none_says_where_coins_come_from(tmp_path: Path):
    with pytest.raises(TraceError, match="limbeck trace seal"):
        read_sealed(tmp_path)
