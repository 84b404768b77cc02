"""From prompts to a verified bundle, by the commands alone, with a real model."""

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from limbeck.cli import app
from limbeck.errors import LimbeckError, TraceError

RUN = CliRunner()
SOURCE = "test beacon, round 7"


def run(*words: object) -> Result:
    return RUN.invoke(app, ["trace", *map(str, words)])


def done(*words: object) -> Result:
    found = run(*words)
    assert found.exit_code == 0, found.output + repr(found.exception)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_teacher_folder: Path) -> Path:
    """Coins that were committed to, registered, sealed and audited; the beacon is an hour away."""
    place = tmp_path_factory.mktemp("place")
    prompts = place / "prompts.txt"
    prompts.write_text("".join(f"Say the number {n}.\n" for n in range(14)), encoding="utf-8")
    drawn = ("--teacher", tiny_teacher_folder, "--max-new-tokens", 6, "--out", place / "coins")
    done("seal", prompts, *drawn, "--commit")
    moment = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    told = done("register", "--coins", place / "coins", "--beacon-source", SOURCE, "--beacon-at", moment,
                "--candidate", place / "student")  # fmt: skip
    assert "--alpha 0.001" in told.output
    done("seal", "--out", place / "coins", "--beacon", f"{moment}=5f3c")
    suspect = _another(tiny_teacher_folder, place / "student")
    done("audit", "--coins", place / "coins", "--suspect", suspect, "--out", place / "report")
    return place


def _another(folder: Path, out: Path) -> Path:
    """A model like this one whose weights are a little different."""
    shutil.copytree(folder, out)
    weights = load_file(out / "model.safetensors")
    rng = np.random.default_rng(0)
    changed = {n: w + rng.normal(0, 0.01, w.shape).astype(w.dtype) for n, w in weights.items()}
    save_file(changed, out / "model.safetensors", metadata={"format": "pt"})
    return out


@pytest.fixture(autouse=True)
def _two_hours_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The beacon is public by the ledger's clock when the bundle is made."""
    monkeypatch.setattr("limbeck.ledger.log.now_ms", lambda: round(time.time() * 1000) + 7_200_000)


def bundle(place: Path, out: Path, *more: object) -> Result:
    words = ("--coins", place / "coins", "--report", place / "report", "--out", out)
    return run("bundle", *words, *more)


def test_a_registered_audit_becomes_a_bundle_that_verifies(place: Path, tmp_path: Path) -> None:
    made = bundle(place, tmp_path / "b.zip")
    assert made.exit_code == 0, made.output + repr(made.exception)
    keys = place / "coins" / "keys" / "public.txt"
    found = done("verify", tmp_path / "b.zip", "--public-key", keys, "--beacon", "5f3c")
    assert found.output.startswith("VERIFIED")
    assert "not shown, which is not the same as not distilled" in found.output
    assert "level        0.001 over 1 tests, 0.001 each" in found.output
    assert "the owner's clock" in found.output


def test_pages_are_written_from_what_came_out(place: Path, tmp_path: Path) -> None:
    bundle(place, tmp_path / "b.zip")
    done("verify", tmp_path / "b.zip", "--pages", tmp_path / "pages")
    assert "did not show" in (tmp_path / "pages" / "run-1.html").read_text(encoding="utf-8")


def test_a_changed_bundle_is_an_error(place: Path, tmp_path: Path) -> None:
    bundle(place, tmp_path / "b.zip")
    raw = bytearray((tmp_path / "b.zip").read_bytes())
    raw[len(raw) // 3] ^= 4
    (tmp_path / "b.zip").write_bytes(raw)
    found = run("verify", tmp_path / "b.zip")
    assert found.exit_code != 0
    assert isinstance(found.exception, LimbeckError)


def test_a_beacon_that_was_not_published_is_an_error(place: Path, tmp_path: Path) -> None:
    bundle(place, tmp_path / "b.zip")
    found = run("verify", tmp_path / "b.zip", "--beacon", "ffff")
    assert isinstance(found.exception, TraceError)


@pytest.mark.parametrize("moment", ["tomorrow", "2026-11-24T15:00:00"])
def test_a_moment_without_a_zone_is_refused(place: Path, moment: str) -> None:
    words = ("--coins", place / "coins", "--beacon-source", SOURCE, "--beacon-at", moment)
    found = run("register", *words)
    assert isinstance(found.exception, TraceError)
    assert "with its zone" in str(found.exception)
