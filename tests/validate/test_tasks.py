import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import TaskError
from limbeck.validate.builtin import DEFAULT, NAMES, about, builtin
from limbeck.validate.tasks import read_task

ROWS: list[dict[str, Any]] = [
    {"q": "one", "answer": "a", "film": "x"},
    {"q": "two", "answer": 1, "film": "x"},
]
CHOICE: dict[str, Any] = {
    "scorer": "choice",
    "prompt": "{q}:",
    "choices": ["a", "b"],
    "chance": 0.5,
}


def write_task(folder: Path, name: str, rows: list[dict[str, Any]], **settings: Any) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    values = {"name": name, "file": f"{name}.jsonl", **settings}
    toml = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(toml) + "\n", encoding="utf-8")
    return path


def refused(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> str:
    with pytest.raises(TaskError) as error:
        read_task(write_task(folder, "t", rows, **settings))
    return str(error.value)


def test_items_have_prompt_gold_chance_and_cluster(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path, "t", ROWS, **CHOICE, cluster="film"))
    one, two = task.items
    assert (one.prompt, one.gold, one.cluster, one.chance) == ("one:", "a", "x", 0.5)
    assert (two.id, two.gold, two.choices) == ("2", "b", ("a", "b"))
    assert task.ask == "text"


def test_labels_say_which_choice_the_gold_field_means(tmp_path: Path) -> None:
    rows = [{"q": "one", "answer": "pos"}]
    path = write_task(tmp_path, "t", rows, **{**CHOICE, "choices": [" bad", " good"]})
    path.write_text(
        path.read_text(encoding="utf-8") + 'labels = { pos = " good" }\n', encoding="utf-8"
    )
    task = read_task(path)
    assert task.items[0].gold == " good"


def test_chance_may_be_uniform_over_an_items_choices(tmp_path: Path) -> None:
    rows = [
        {"q": "one", "answer": "a", "options": ["a", "b"]},
        {"q": "two", "answer": "c", "options": ["a", "b", "c", "d"]},
    ]
    settings = {**CHOICE, "choices": None, "choices_field": "options", "chance": "uniform"}
    task = read_task(write_task(tmp_path, "t", rows, **settings))
    assert [i.chance for i in task.items] == [0.5, 0.25]


def test_items_that_ask_the_very_same_share_a_cluster(tmp_path: Path) -> None:
    rows = [{"q": q, "answer": "a"} for q in ("one", "two", "one")]
    a, b, c = read_task(write_task(tmp_path, "t", rows, **CHOICE)).items
    assert a.cluster == c.cluster != b.cluster


def test_the_hash_follows_items_and_settings_but_not_the_place(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    one = read_task(write_task(tmp_path, "t", ROWS, **CHOICE)).sha256
    assert read_task(write_task(tmp_path / "there", "t", ROWS, **CHOICE)).sha256 == one
    other = [{**ROWS[0], "answer": "b"}, ROWS[1]]
    assert read_task(write_task(tmp_path, "t", other, **CHOICE)).sha256 != one
    assert read_task(write_task(tmp_path, "t", ROWS, **{**CHOICE, "chance": 0.4})).sha256 != one


def test_a_limit_takes_the_same_items_in_any_order(tmp_path: Path) -> None:
    rows = [{"q": str(i), "answer": "a", "name": f"n{i}"} for i in range(30)]
    first = read_task(write_task(tmp_path, "t", rows, **CHOICE, id="name"), limit=5)
    again = read_task(write_task(tmp_path, "t", rows[::-1], **CHOICE, id="name"), limit=5)
    assert {i.id for i in first.items} == {i.id for i in again.items}
    assert len(first.items) == 5


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    path = write_task(tmp_path, "t", ROWS, **CHOICE)
    plain = (tmp_path / "t.jsonl").read_bytes()
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(plain))
    path.write_text(path.read_text().replace("t.jsonl", "t.jsonl.gz"), encoding="utf-8")
    assert len(read_task(path).items) == 2


def test_an_empty_task_is_refused(tmp_path: Path) -> None:
    assert "is empty" in refused(tmp_path, [], **CHOICE)


def test_equal_ids_are_refused_with_their_places(tmp_path: Path) -> None:
    rows = [{"q": "one", "answer": "a", "id": "x"}, {"q": "two", "answer": "a", "id": "x"}]
    said = refused(tmp_path, rows, **CHOICE, id="id")
    assert "items 1 and 2" in said
    assert "one id, 'x'" in said


@pytest.mark.parametrize("answer", ["c", 2, -1])
def test_gold_outside_the_choices_is_refused_with_its_line(tmp_path: Path, answer: Any) -> None:
    said = refused(tmp_path, [ROWS[0], {"q": "two", "answer": answer}], **CHOICE)
    assert "t.jsonl line 2" in said
    assert "choice" in said


def test_a_chance_level_that_nobody_stated_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, ROWS, **{**CHOICE, "chance": None})
    assert "chance is missing: state what guessing scores" in said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chance": 1.0}, "chance"),
        ({"chance": "even"}, "chance"),
        ({"scorer": "guess"}, "scorer"),
        ({"chioces": ["a"]}, "unknown key chioces; known are name, scorer"),
        ({"choices": None}, "exactly one of choices and choices_field"),
        ({"choices": ["a"]}, "at least two choices"),
        ({"choices": ["a", "a"]}, "choices must differ"),
        ({"prompt": "{question}"}, "no field 'question'.*has q, answer, film"),
        ({"prompt": "{q"}, "cannot be filled"),
        ({"gold": "truth"}, "no field 'truth'"),
        ({"scorer": "json_schema"}, "needs json_schema"),
        ({"scorer": "exact", "chance": "uniform"}, "goes with choices"),
        ({"scorer": "inspect", "choices": None}, "needs teacher_log"),
    ],
)
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    assert re.search(says, refused(tmp_path, ROWS, **{**CHOICE, **changes}))


def test_malformed_files_are_named_with_the_line(tmp_path: Path) -> None:
    path = write_task(tmp_path, "t", ROWS, **CHOICE)
    (tmp_path / "t.jsonl").write_text('{"q": "one", "answer": "a"}\n{"q": \n', encoding="utf-8")
    with pytest.raises(TaskError, match=r"t\.jsonl line 2 is not JSON"):
        read_task(path)
    (tmp_path / "t.jsonl").write_text("[1]\n", encoding="utf-8")
    with pytest.raises(TaskError, match="line 1 must be an object"):
        read_task(path)
    (tmp_path / "t.jsonl").unlink()
    with pytest.raises(TaskError, match=r"t\.jsonl does not exist"):
        read_task(path)
    path.write_text("name = \n", encoding="utf-8")
    with pytest.raises(TaskError, match="is not TOML"):
        read_task(path)


@pytest.mark.parametrize("name", NAMES)
def test_built_in_tasks_are_sound_and_the_same_every_time(name: str) -> None:
    task = builtin(name)
    assert task.sha256 == builtin(name).sha256
    assert len(task.items) >= 20
    assert about(name)
    for item in task.items:
        assert not item.choices or item.gold in item.choices


def test_the_default_set_has_a_thousand_items_and_no_written_answers() -> None:
    tasks = [builtin(name) for name in DEFAULT]
    assert sum(len(t.items) for t in tasks) >= 1000
    assert {t.settings.scorer for t in tasks} == {"choice"}


def test_an_unknown_built_in_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TaskError, match="capitals, kinds"):
        builtin("capital")
