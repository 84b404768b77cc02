from pathlib import Path

import pytest

from limbeck.errors import RunError
from limbeck.workers import run_workers


def test_a_worker_that_fails_is_heard_and_the_others_are_stopped(tmp_path: Path) -> None:
    def command(part: str) -> list[str]:
        return ["limbeck.capture_worker", str(tmp_path), ".", "{}", part]

    with pytest.raises(RunError, match=r"worker [12] of 2 failed: .* holds no Limbeck run"):
        run_workers([command("0"), command("1")], heard=lambda _: None)
