"""The gain of a copier's student: which answers it learns from, how it is marked, and all of the path on a tiny model."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _siblings() -> Iterator[None]:
    pytest.importorskip("sklearn")
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def gain(_siblings: None) -> ModuleType:
    return importlib.import_module("guard_gain")


def _plan(gain: ModuleType, pool: int, released: tuple[int, ...]) -> Any:
    here = Path()
    rest = {"seeds": 1, "exam": 6, "quick": True, "set_student": ()}
    return gain.Plan(here, here, None, "base", pool, released, **rest)


@given(st.integers(3, 400), st.integers(0, 400), st.integers(0, 50))
def test_the_first_answers_are_cut_off_and_as_many_are_drawn_from_the_whole_pool(
    gain: ModuleType, pool: int, draw: int, seed: int
) -> None:
    count = 2 + draw % (pool - 2)
    found = gain.subsets(_plan(gain, pool, (count,)), seed)
    assert found["undefended", pool] == list(range(pool))
    assert found["cut_off", count] == list(range(count))
    drawn = found["random", count]
    assert len(set(drawn)) == len(drawn) == count
    assert set(drawn) <= set(range(pool))


def _utterances() -> list[Any]:
    snips = importlib.import_module("snips")
    return [
        snips.Utterance(("rain", "in", "rome"), ("O", "O", "B-city"), "GetWeather"),
        snips.Utterance(("play", "blue"), ("O", "B-track"), "PlayMusic"),
    ]


def test_gold_answers_score_one_wrong_values_keep_the_intent_and_nonsense_scores_nothing(
    gain: ModuleType,
) -> None:
    exam, mark = _utterances(), gain.mark
    gold = [u.frame.text for u in exam]
    assert mark(gold, exam) == {"slot_f1": 1.0, "exact": 1.0, "intent": 1.0}
    half = mark(["GetWeather | city=paris", gold[1]], exam)
    assert half == {"slot_f1": 0.5, "exact": 0.5, "intent": 1.0}
    assert mark(["", "?"], exam) == {"slot_f1": 0.0, "exact": 0.0, "intent": 0.0}


def test_gains_are_shares_of_the_undefended_gain_and_unknown_where_there_is_none(
    gain: ModuleType,
) -> None:
    full = {"slot_f1": 0.8, "exact": 0.0, "intent": 0.5}
    few = {"slot_f1": 0.2, "exact": 0.0, "intent": 0.4}
    marks = {("undefended", 10): [full], ("cut_off", 3): [few], ("random", 3): [full]}
    (point,) = gain.figures(_plan(gain, 10, (3,)), marks)["points"]
    assert point["released"] == 3
    assert point["gain_released"] == pytest.approx(0.25)
    assert point["gain_released_random"] == pytest.approx(1.0)
    assert point["intent_gain_released"] == pytest.approx(0.8)
    assert point["exact_gain_released"] is None


@pytest.mark.slow
def test_all_of_the_path_runs_on_a_tiny_model(
    gain: ModuleType,
    tmp_path: Path,
    tiny_teacher_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {"text": f"play song {n}", "slots": "O B-track I-track", "intent": "PlayMusic"}
        if n % 2
        else {"text": f"rain in {n}", "slots": "O O B-city", "intent": "GetWeather"}
        for n in range(60)
    ]
    for split, part in (("train", rows[:50]), ("valid", rows[50:54]), ("test", rows[54:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / f"snips.{split}.jsonl").write_text(lines, encoding="utf-8")
    small = [
        "train.precision=no",
        "student.layers=2",
        "student.intermediate=32",
        "corpus.heldout_fraction=0.1",
    ]
    options = [
        *("--quick", "--data", str(tmp_path), "--work", str(tmp_path / "work"), "--exam", "6"),
        *("--teacher", str(tiny_teacher_folder), "--base", str(tiny_teacher_folder)),
        *("--pool", "40", "--released", "10", "20"),
        *(part for key in small for part in ("--set-student", key)),
    ]
    monkeypatch.setattr("sys.argv", ["guard_gain.py", *options])
    gain.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["pool"], found["seeds"], found["quick"]) == (40, 1, True)
    assert [point["released"] for point in found["points"]] == [10, 20]
    assert [row["answers"] for row in found["arms"]] == [40, 10, 10, 20, 20]
