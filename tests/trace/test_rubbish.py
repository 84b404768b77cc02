"""Whatever stands in a folder of coins, reading it ends in one sentence: signed rubbish too."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import LimbeckError
from limbeck.ledger.encoding import canonical
from limbeck.ledger.keys import Keys, new_keys
from limbeck.ledger.log import open_log
from limbeck.ledger.note import sign
from limbeck.trace.bundle import Plan, export_trace, register, teacher_of
from limbeck.trace.coins import Pair, usable
from limbeck.trace.registration import Named
from limbeck.trace.sealing import COINS, COMMITMENT, KEY, PAIRS, Beacon, commit, read_sealed, seal
from smalltrace import Case

PLAN = Plan((Named("a", "b"),), "a source", 4_102_444_800_000)
NOTES = ("committed", "sealed")
VALUES: tuple[Any, ...] = (None, 3, "zz", [], {})
BYTES = (
    b"",
    b"\xff\xfe\x00",
    b"[]",
    b"{}",
    b"null",
    b'{"format": "limbeck.coins/1"}',
    b"[" * 100_000,
)


@pytest.fixture(scope="module")
def keys() -> Keys:
    return new_keys("tests")


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    folder = tmp_path_factory.mktemp("committed") / "coins"
    pairs = usable([Pair(f"p{i}", "a", "b\u2028c") for i in range(12)])
    commit(folder, pairs, keys.signer, teacher={"name": "x"}, now=datetime.now(UTC))
    return folder


@pytest.fixture(scope="module")
def sealed(committed: Path, tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    folder = tmp_path_factory.mktemp("sealed") / "coins"
    shutil.copytree(committed, folder)
    seal(folder, keys.signer, Beacon("v", datetime.now(UTC) + timedelta(seconds=9)))
    assert len(read_sealed(folder).coins) == 12
    return folder


def rubbish(path: Path, keys: Keys) -> Iterator[bytes]:
    """Yield what a file may hold instead: no JSON, other JSON, and notes that are signed and say nonsense."""
    data = path.read_bytes()
    yield from (*BYTES, data[: len(data) // 2])
    if path.name != COMMITMENT:
        return
    whole = json.loads(data)
    for name in whole:
        yield json.dumps({k: v for k, v in whole.items() if k != name}).encode()
        yield from (json.dumps({**whole, name: value}).encode() for value in VALUES)
    for note in NOTES:
        if whole[note] is None:
            continue
        row = json.loads(whole[note].split("\n\n")[0])
        changed = [{k: v for k, v in row.items() if k != name} for name in row]
        changed += [{**row, name: value} for name in row for value in VALUES]
        for one in changed:
            text = sign(canonical(one).decode() + "\n", keys.signer)
            yield json.dumps({**whole, note: text}).encode()


def copies(folder: Path, name: str, keys: Keys, place: Path) -> Iterator[Path]:
    for number, data in enumerate(rubbish(folder / name, keys)):
        shutil.copytree(folder, place / str(number))
        (place / str(number) / name).write_bytes(data)
        yield place / str(number)


@pytest.mark.parametrize("name", [COMMITMENT, COINS, KEY])
def test_sealed_coins_are_read_or_refused(name: str, sealed: Path, keys: Keys, tmp_path: Path):
    refused = 0
    for folder in copies(sealed, name, keys, tmp_path):
        try:
            read_sealed(folder)
            teacher_of(folder)
        except LimbeckError:
            refused += 1
    assert refused >= len(BYTES)


@pytest.mark.parametrize("name", [COMMITMENT, PAIRS, KEY])
def test_committed_coins_are_sealed_and_registered_or_refused(
    name: str, committed: Path, keys: Keys, tmp_path: Path
):
    refused = 0
    for folder in copies(committed, name, keys, tmp_path):
        try:
            with open_log(folder / "ledger.db", keys) as log:
                register(folder, PLAN, log, keys)
        except LimbeckError:
            refused += 1
        try:
            seal(folder, keys.signer, None)
        except LimbeckError:
            refused += 1
    assert refused >= len(BYTES)


def test_a_report_that_is_none_is_refused_before_it_is_numbered(tmp_path: Path):
    case = Case(tmp_path)
    case.commit()
    case.register()
    case.seal()
    real = json.loads(case.audit().read_text())
    (tmp_path / "odd").mkdir()
    for number, value in enumerate(
        [
            [],
            {"items": []},
            *(
                {k: v for k, v in real.items() if k != name}
                for name in ("suspect", "audited_accounts")
            ),
            real | {"suspect": 3},
            real | {"audited_accounts": None},
        ]
    ):
        path = tmp_path / "odd" / f"{number}.json"
        path.write_text(json.dumps(value))
        with pytest.raises(LimbeckError, match=r"report|lacks|must have"):
            case.export(path)

    def act(log: Any) -> Any:
        return export_trace(case.coins, [case.audit()], log, case.keys, tmp_path / "b.zip")

    assert case.log(act).runs == 1
