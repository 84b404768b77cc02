import json
from pathlib import Path

import orjson
import pytest

from limbeck.errors import GuardError
from limbeck.guard.policy import load_policy
from limbeck.guard.replay import as_line, decide, replay
from limbeck.guard.traffic import from_observation, read_log
from limbeck.guard.watch import Watch
from tinytraffic import compose

SECRET = b"test"


def write(path: Path) -> Path:
    lines = [
        json.dumps(from_observation(one)) for one in compose(honest=2, campaigns=1).observations
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def watch() -> Watch:
    return Watch(load_policy(), secret=SECRET)


def test_a_replay_says_what_the_live_watch_says_line_by_line(tmp_path: Path) -> None:
    log, out = write(tmp_path / "log.jsonl"), tmp_path / "out" / "decisions.jsonl"
    done = replay(log, watch(), out)
    live = watch()
    expected = [as_line(live.observe(one)) for one in read_log(log)]
    assert [orjson.loads(line) for line in out.read_bytes().splitlines()] == expected
    assert done.intake.kept == sum(done.actions.values()) == len(expected)


def test_a_replay_that_fails_leaves_no_file(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl")
    log.write_text(log.read_text() + "\n{")
    with pytest.raises(GuardError, match="not JSON"):
        replay(log, watch(), tmp_path / "d.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
    assert replay(log, watch(), tmp_path / "d.jsonl", skip_unreadable=True).intake.skipped == 1


def test_decisions_are_made_one_at_a_time(tmp_path: Path) -> None:
    made = decide(iter(compose(honest=1, campaigns=1).observations), watch())
    assert next(made).account


def test_decisions_are_never_written_over_the_log_or_into_it(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl")
    before = log.read_bytes()
    for given, out in ((log, log), (tmp_path, tmp_path / "d.jsonl")):
        with pytest.raises(GuardError, match="over, or into"):
            replay(given, watch(), out)
    assert log.read_bytes() == before


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "2026-11-23.jsonl").write_bytes(b"".join(lines[:20]))
    (parts / "2026-11-24.jsonl").write_bytes(b"".join(lines[20:]))
    (parts / "notes.txt").write_text("not a log")
    replay(log, watch(), tmp_path / "one")
    replay(parts, watch(), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
