import os
import signal
import time
from pathlib import Path

import pytest

from guardstate import fork, wait_for
from limbeck.errors import StateError
from limbeck.guard.state.counters import Counters, charged, dead


def is_dead(path: Path) -> bool:
    with dead(path) as found:
        return found


def test_what_was_charged_is_read_from_the_file_by_lease(tmp_path: Path) -> None:
    counters = Counters(tmp_path, "w")
    first, second = counters.claim(7), counters.claim(8, 100)
    counters.cells[2 * first + 1] = 41
    assert charged(counters.path) == {7: 41, 8: 100}
    counters.free(first)
    assert charged(counters.path) == {8: 100}
    assert counters.claim(9) == first
    assert charged(counters.path) == {9: 0, 8: 100}
    counters.free(second)
    counters.close()
    assert not counters.path.exists()


def test_the_file_grows_with_its_leases_and_keeps_them(tmp_path: Path) -> None:
    counters = Counters(tmp_path, "w")
    slots = [counters.claim(n, 10 * n) for n in range(1, 10_001)]
    assert len(set(slots)) == 10_000
    assert charged(counters.path) == {n: 10 * n for n in range(1, 10_001)}
    counters.close()


def test_a_full_disk_leaves_the_old_numbers_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = Counters(tmp_path, "w")
    for n in range(1, 4097):
        counters.claim(n, n)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StateError, match=r"cannot grow: .*No space left"):
        counters.claim(5000)
    assert charged(counters.path) == {n: n for n in range(1, 4097)}
    counters.cells[1] += 1
    counters.close()


def test_a_living_workers_file_is_not_dead_and_a_closed_one_is_gone(tmp_path: Path) -> None:
    counters = Counters(tmp_path, "w")
    assert not is_dead(counters.path)
    counters.close()
    assert not is_dead(counters.path)


def test_a_killed_workers_last_number_is_in_its_file(tmp_path: Path) -> None:
    def count() -> None:
        counters = Counters(tmp_path, "w")
        slot = counters.claim(5)
        told = os.open(tmp_path / "told", os.O_WRONLY | os.O_CREAT)
        while True:
            counters.cells[2 * slot + 1] += 1
            os.pwrite(told, str(counters.cells[2 * slot + 1]).encode(), 0)

    child = fork(count)
    path = tmp_path / "w.shares"
    wait_for(path.exists, "the child's file")
    time.sleep(0.05)
    assert not is_dead(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert is_dead(path)
    told = int((tmp_path / "told").read_text("ascii"))
    assert told <= charged(path)[5] <= told + 1


def test_a_folder_that_cannot_be_written_to_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot keep a worker's counters"):
        Counters(tmp_path / "file", "w")
