"""The harness itself, offline, on a local task file."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import MissingDependencyError, TaskError
from limbeck.model import LocalModel
from limbeck.validate.lm_eval_task import score_lm_eval
from limbeck.validate.local import LocalRespondent
from limbeck.validate.tasks import TaskFile, parse_settings


def deaf(_: int) -> None:
    """Hear nothing."""


THERE = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not THERE, reason="pip install 'limbeck[lm-eval]' to run it")


def settings(**changes: Any) -> TaskFile:
    raw = {
        "name": "l",
        "scorer": "lm_eval",
        "task": "clocks",
        "folder": "tasks",
        "chance": "uniform",
    }
    return parse_settings({**raw, **changes}, "l")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "tasks"
    place.mkdir()
    rows = [
        {"q": f"Clock {i} stands on", "options": [" the shelf", " a mill"], "gold": i % 2}
        for i in range(12)
    ]
    (place / "clocks.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8"
    )
    (place / "clocks.yaml").write_text(
        f"""task: clocks
dataset_path: json
dataset_kwargs:
  data_files:
    test: {place / "clocks.jsonl"}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: gold
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
""",
        encoding="utf-8",
    )
    return tmp_path


@needs_harness
@pytest.mark.filterwarnings("ignore")
def test_a_local_task_of_the_harness_is_scored_as_we_score_it(
    tiny_local: LocalModel, folder: Path
) -> None:
    from limbeck.validate.respond import Asked

    respondent = LocalRespondent(tiny_local)
    found = score_lm_eval(settings(), respondent, base=folder, limit=None, heard=lambda _: None)
    rows = [json.loads(x) for x in (folder / "tasks" / "clocks.jsonl").read_text().splitlines()]
    said = respondent.weigh(
        [Asked("x", r["q"], "text") for r in rows],
        [tuple(r["options"]) for r in rows],
        heard=lambda _: None,
    )
    known = [float(s.log_C[r["gold"]] == max(s.log_C)) for s, r in zip(said, rows, strict=True)]
    assert [o.score for o in found] == known
    assert {o.chance for o in found} == {0.5}


@needs_harness
@pytest.mark.filterwarnings("ignore")
def test_a_task_or_score_that_is_not_there_is_named(tiny_local: LocalModel, folder: Path) -> None:
    respondent = LocalRespondent(tiny_local)
    options: Any = {"base": folder, "limit": 3, "heard": deaf}
    with pytest.raises(TaskError, match="lm-eval task bells is not in"):
        score_lm_eval(settings(task="bells"), respondent, **options)
    with pytest.raises(TaskError, match="has no score 'f1'"):
        score_lm_eval(settings(metric="f1"), respondent, **options)


@pytest.mark.skipif(THERE, reason="the harness is installed")
def test_without_the_harness_the_extra_is_named(tiny_local: LocalModel, tmp_path: Path) -> None:
    options: Any = {"base": tmp_path, "limit": None, "heard": deaf}
    with pytest.raises(MissingDependencyError, match=r"limbeck\[lm-eval\]"):
        score_lm_eval(settings(), LocalRespondent(tiny_local), **options)
