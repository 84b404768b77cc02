"""docs/trace-bundle.md: commands that exist, files that are there, and its formulas, computed from the page alone."""

import hashlib
import hmac
import json
import math
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.ledger.container import read_container
from smalltrace import PLAN, VALUE, Case

PAGE = (Path(__file__).parents[2] / "docs" / "trace-bundle.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    case = Case(tmp_path_factory.mktemp("trace"))
    case.commit()
    case.register(PLAN)
    case.seal()
    return read_container(case.export(case.audit(weights="fitted")))


def test_every_command_is_one_with_these_options() -> None:
    commands: list[str] = re.findall(r"^    limbeck (trace \w+)(.*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 8
    for words, rest in commands:
        told = CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": "200"})
        assert told.exit_code == 0
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in told.output, (words, option)


def test_every_file_of_a_bundle_is_described(files: dict[str, bytes]) -> None:
    for name in files:
        shown = re.sub(r"run-\d+", "run-N", name)
        assert f"`{shown}`" in PAGE or shown.startswith("manifest")


def test_every_field_of_the_notes_is_described(files: dict[str, bytes]) -> None:
    for name in ("registration.note", "committed.note", "sealed.note"):
        line = next(row for row in PAGE.splitlines() if row.startswith(f"| `{name}`"))
        for field in json.loads(files[name].decode().split("\n\n")[0]):
            assert f"`{field}`" in line, (name, field)


def test_bits_and_e_value_come_out_of_the_page_s_formulas(files: dict[str, bytes]) -> None:
    key = bytes.fromhex(files["coin.key"].decode())
    coins = [json.loads(line) for line in files["coins.jsonl"].splitlines()]
    report = json.loads(files["run-1.json"])
    bets = report["statistic"]["bets"]
    capital = dict.fromkeys(bets, 1.0)
    for coin, item in zip(coins, report["items"], strict=False):
        parts = (coin[name].encode() for name in ("prompt", "y0", "y1", "account"))
        pair = hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()
        bit = hmac.digest(key, VALUE.encode() + pair, "sha256")[-1] & 1
        assert (pair.hex(), bit, bit) == (coin["hash"], coin["served"], item["bit"])
        for a in bets:
            capital[a] *= 2 / (1 + math.exp(-a * (2 * bit - 1) * item["d"]))
    e_value = sum(capital.values()) / len(bets)
    assert e_value == pytest.approx(report["e_value"])
    committed = json.loads(files["committed.note"].decode().split("\n\n")[0])
    assert hashlib.sha256(b"limbeck coin key\n" + key).hexdigest() == committed["key_sha256"]
