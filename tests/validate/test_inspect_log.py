import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import TaskError
from limbeck.validate.inspect_log import read_log
from limbeck.validate.tasks import TaskFile, parse_settings


def settings(**changes: Any) -> TaskFile:
    raw = {"name": "g", "scorer": "inspect", "chance": 0.25, "teacher_log": "t", "student_log": "s"}
    return parse_settings({**raw, **changes}, "g")


def sample(name: str, value: Any, epoch: int = 1, **more: Any) -> dict[str, Any]:
    scores = {"match": {"value": value, "answer": "x"}}
    return {"id": name, "epoch": epoch, "scores": scores, "metadata": {"film": "f"}, **more}


def as_json(path: Path, samples: list[dict[str, Any]], status: str = "success") -> Path:
    log = {"version": 2, "status": status, "eval": {"task": "g", "model": "m"}, "samples": samples}
    path.write_text(json.dumps(log), encoding="utf-8")
    return path


def as_archive(path: Path, samples: list[dict[str, Any]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({"status": "success", "eval": {"task": "g"}}))
        for s in samples:
            archive.writestr(f"samples/{s['id']}_epoch_{s['epoch']}.json", json.dumps(s))
    return path


def test_both_forms_of_a_log_say_the_same(tmp_path: Path) -> None:
    samples = [sample("a", "C"), sample("b", "I"), sample("c", 0.5), sample("d", True)]
    one = read_log(as_json(tmp_path / "l.json", samples), settings())
    two = read_log(as_archive(tmp_path / "l.eval", samples), settings())
    assert sorted(one, key=lambda o: o.item) == sorted(two, key=lambda o: o.item)
    assert {o.item: o.score for o in one} == {"a": 1, "b": 0, "c": 0.5, "d": 1}
    assert one[0].chance == 0.25


def test_epochs_of_a_sample_are_averaged(tmp_path: Path) -> None:
    samples = [sample("a", "C", 1), sample("a", "I", 2)]
    [found] = read_log(as_json(tmp_path / "l.json", samples), settings())
    assert found.score == 0.5


def test_clusters_come_from_the_metadata(tmp_path: Path) -> None:
    path = as_json(tmp_path / "l.json", [sample("a", "C")])
    assert read_log(path, settings(cluster="film"))[0].cluster == "f"
    with pytest.raises(TaskError, match="no 'user' in its metadata"):
        read_log(path, settings(cluster="user"))


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="is empty"):
        read_log(as_json(tmp_path / "a.json", []), settings())
    with pytest.raises(TaskError, match="status 'error'"):
        read_log(as_json(tmp_path / "b.json", [sample("a", "C")], "error"), settings())
    with pytest.raises(TaskError, match="no number in"):
        read_log(as_json(tmp_path / "c.json", [sample("a", "great")]), settings())
    with pytest.raises(TaskError, match="no score 'f1'; it has"):
        read_log(as_json(tmp_path / "d.json", [sample("a", "C")]), settings(metric="f1"))
    with pytest.raises(TaskError, match="does not exist"):
        read_log(tmp_path / "none.eval", settings())
    (tmp_path / "e.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TaskError, match="no Inspect log"):
        read_log(tmp_path / "e.json", settings())
