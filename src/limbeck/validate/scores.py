"""The scores of a validation on disk: one JSON line an outcome, a file for every model and task."""

import json
from collections.abc import Sequence
from pathlib import Path

from limbeck.artefact import write_text
from limbeck.stats.paired import Paired
from limbeck.validate.outcome import Outcome, paired


class ScoreBook:
    """Owns the folder `scores/`; ARM/TASK.jsonl holds one model's outcomes on one task, in the order of its items."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, arm: str, task: str) -> list[Outcome]:
        """Return a model's outcomes on a task; empty where there are none yet."""
        path = self._path(arm, task)
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Outcome(**json.loads(line)) for line in lines]

    def write(self, arm: str, task: str, made: Sequence[Outcome]) -> None:
        """Write a model's outcomes on a task, in place of older ones."""
        lines = (json.dumps(o.as_dict(), ensure_ascii=False) + "\n" for o in made)
        write_text(self._path(arm, task), "".join(lines))

    def arm(self, arm: str, tasks: Sequence[str]) -> dict[str, list[Outcome]]:
        """Return a model's outcomes by task, without the tasks that it was not scored on."""
        found = {task: self.read(arm, task) for task in tasks}
        return {task: rows for task, rows in found.items() if rows}

    def pair(self, task: str, left: str, right: str) -> Paired:
        """Return two models' scores, the left one in the teacher's place, on the items that the right one has.

        Raises:
            ScoringError: The left one lacks one of them.
        """
        theirs = self.read(right, task)
        there = {o.item for o in theirs}
        return paired([o for o in self.read(left, task) if o.item in there], theirs)

    def _path(self, arm: str, task: str) -> Path:
        return self._folder / arm / f"{task}.jsonl"
