"""The traffic log on the disk: days, retention, half lines, disks that are full."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from limbeck.guard.journal import Journal, Journaled, Keeping
from limbeck.guard.policy import load_policy
from limbeck.guard.traffic import read_log
from limbeck.guard.watch import Watch
from tinytraffic import observation

DAY = 86_400.0
T0 = 1_790_000_000.0  # 2026-09-21


class Days:
    """A guard's log and the clock that it goes by."""

    def __init__(self, folder: Path, **texts: Keeping) -> None:
        self.folder = folder
        self.now = T0
        self.journal = Journal(folder, days=10, texts=texts, clock=lambda: self.now)
        self.watch = Journaled(Watch(load_policy(), secret=b"s"), self.journal)

    def ask(self, account: str, text: str = "What is a limbeck?") -> None:
        self.watch.observe(observation(account, self.now, text))
        self.journal.flush()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def text(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.iterdir()))


@pytest.fixture
def days(tmp_path: Path) -> Generator[Days]:
    opened = Days(tmp_path / "t", kept=Keeping("appeal 7", 2))
    yield opened
    opened.journal.close()


def test_a_day_has_a_file_and_old_days_go(tmp_path: Path, days: Days) -> None:
    for _ in range(3):
        days.ask("a")
        days.now += DAY
    assert days.names() == ["2026-09-21.jsonl", "2026-09-22.jsonl", "2026-09-23.jsonl"]
    days.now = T0 + 11 * DAY
    (tmp_path / "t" / "notes.jsonl").write_text("of somebody else\n")
    days.journal.flush()
    days.journal.tidy()
    assert days.names() == ["2026-09-22.jsonl", "2026-09-23.jsonl", "notes.jsonl"]


def test_texts_go_when_their_time_is_over_even_if_nobody_asks_any_more(tmp_path: Path) -> None:
    days = Days(tmp_path / "t", kept=Keeping("appeal 7", 2))
    days.ask("kept/kim", "A secret of Kim's.")
    days.ask("other", "Nobody's business.")
    days.now += DAY
    days.journal.flush()
    days.journal.tidy()
    assert "A secret of Kim's." in days.text()
    assert "appeal 7" in days.text()
    assert "Nobody's business." not in days.text()
    assert "It is so." not in json.dumps(
        [json.loads(line) for line in days.text().splitlines()[1:]]
    )
    days.now += DAY
    days.journal.flush()
    days.journal.tidy()
    assert "Kim's" not in days.text()
    assert "It is so." not in days.text()
    assert [one.account for one in read_log(tmp_path / "t")] == ["kept/kim", "other"]


def test_half_a_line_of_a_killed_keeper_is_cut_off(tmp_path: Path, days: Days) -> None:
    days.ask("a")
    days.journal.close()
    (path,) = days.folder.iterdir()
    with path.open("a") as file:
        file.write('{"ts": "2026' + "x" * 200_000)
    again = Days(tmp_path / "t")
    again.ask("b")
    again.journal.close()
    assert [one.account for one in read_log(tmp_path / "t")] == ["a", "b"]


def test_a_clock_that_steps_back_over_midnight_keeps_the_order(tmp_path: Path, days: Days) -> None:
    for account, step in (("a", DAY), ("b", -DAY), ("c", DAY), ("d", 0.0)):
        days.ask(account)
        days.now += step
    assert [one.account for one in read_log(tmp_path / "t")] == ["a", "b", "c", "d"]


def test_a_disk_that_fails_costs_lines_and_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = Days(tmp_path / "file" / "t")
    (tmp_path / "file").write_text("in the way")
    days.ask("a")
    assert days.journal.lost == 1
    assert "cannot be written" in (days.journal.lack or "")
    (tmp_path / "file").unlink()
    days.ask("a")
    assert days.journal.lack is None
    assert len(days.text().splitlines()) == 1
    days.journal.close()
