"""The task benchmark: its canonical answers, its marks, and all of its path on a model of 4 layers."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.backends import load
from limbeck.errors import CorpusError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WORDS = ("play", "rain", "in", "paris", "tomorrow", "a=b", "some", "jazz", "|", "é")
SLOTS = ("city", "timeRange", "music_item")
INTENTS = ("GetWeather", "PlayMusic")


@pytest.fixture(scope="module", autouse=True)
def _siblings() -> Iterator[None]:
    """Let the benchmarks import each other, as they do when they are run."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def snips(_siblings: None) -> ModuleType:
    return importlib.import_module("snips")


@pytest.fixture(scope="module")
def exam(_siblings: None) -> ModuleType:
    return importlib.import_module("exam")


@pytest.fixture(scope="module")
def task(_siblings: None) -> ModuleType:
    return importlib.import_module("task")


VALUE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
SLOT = st.tuples(st.sampled_from(SLOTS), VALUE)


@given(st.sampled_from(INTENTS), st.lists(SLOT, max_size=4))
def test_a_frame_is_read_back_from_its_text(
    snips: ModuleType, intent: str, slots: list[tuple[str, str]]
) -> None:
    frame = snips.Frame(intent, tuple(slots))
    assert snips.parse(frame.text) == frame
    assert snips.stated_intent(frame.text) == intent


@given(st.text(alphabet="ab |;=", max_size=24))
def test_an_answer_that_is_read_has_no_other_spelling(snips: ModuleType, text: str) -> None:
    frame = snips.parse(text)
    assert frame is None or frame.text == text


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(["O", *SLOTS])), min_size=1))
def test_a_frame_holds_each_word_of_a_slot_once_and_in_order(
    snips: ModuleType, tagged: list[tuple[str, str]]
) -> None:
    words = [word for word, _ in tagged]
    names = [name for _, name in tagged]
    before = ["O", *names]
    tags = [
        "O" if name == "O" else ("I-" if name == last else "B-") + name
        for name, last in zip(names, before, strict=False)
    ]
    frame = snips.frame_of(words, tags, "X")
    assert " ".join(value for _, value in frame.slots).split() == [
        word for word, name in tagged if name != "O"
    ]
    assert len(frame.slots) == sum(tag.startswith("B-") for tag in tags)


def test_two_slots_of_one_name_side_by_side_stay_two(snips: ModuleType) -> None:
    frame = snips.frame_of(["rome", "paris", "texas"], ["B-city", "B-city", "I-city"], "X")
    assert frame.slots == (("city", "rome"), ("city", "paris texas"))
    assert frame.text == "X | city=rome; city=paris texas"


@pytest.mark.parametrize("value", ["", "two  spaces", "a; b"])
def test_a_value_that_would_not_be_read_back_is_refused(snips: ModuleType, value: str) -> None:
    with pytest.raises(CorpusError, match="a part of a frame"):
        _ = snips.Frame("X", (("city", value),)).text


def test_a_malformed_line_is_named(snips: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"holds neither snips\.test\.jsonl"):
        snips.read_split(tmp_path, "test")
    good = json.dumps({"text": "play jazz", "slots": "O B-music_item", "intent": "PlayMusic"})
    for bad, why in (
        ("{", "is no object with text, slots and intent"),
        ('{"text": "a b", "slots": "O", "intent": "X"}', "has 2 words and 1 tags"),
        ('{"text": "a", "slots": "X-y", "intent": "X"}', "has the tag 'X-y'"),
    ):
        (tmp_path / "snips.test.jsonl").write_text(f"{good}\n{bad}\n", encoding="utf-8")
        with pytest.raises(CorpusError, match=f"line 2 {why}"):
            snips.read_split(tmp_path, "test")


def test_a_share_has_wilsons_interval(exam: ModuleType) -> None:
    found = exam.share([True] * 8 + [False] * 2)
    # Worked by hand: (p + z^2/2n -/+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.959964.
    assert found.as_list() == pytest.approx([0.8, 0.490162, 0.943318], abs=1e-6)
    none = exam.share([False] * 5)
    assert none.low == 0.0
    assert none.high > 0.3


def test_a_duel_counts_only_where_the_two_differ(exam: ModuleType) -> None:
    first = [True] * 9 + [False] * 1 + [True] * 50
    second = [False] * 9 + [True] * 1 + [True] * 50
    found = exam.duel(first, second)
    assert (found.only_first, found.only_second) == (9, 1)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)
    assert exam.duel(first, first).p == 1.0


def test_answers_of_a_batch_are_those_of_each_alone(
    exam: ModuleType, tiny_teacher_folder: Path
) -> None:
    local = load(str(tiny_teacher_folder), dtype="float32")
    rng = np.random.default_rng(3)
    prompts = [rng.integers(3, 400, length).tolist() for length in (3, 9, 5, 12, 7)]
    together = exam.answer(local, prompts, most=8, batch=3)
    for prompt, text in zip(prompts, together, strict=True):
        tokens = list(prompt)
        with torch.inference_mode():
            for _ in range(8):
                tokens.append(int(local.model(torch.tensor([tokens])).logits[0, -1].argmax()))
        assert text == local.tokenizer.decode(tokens[len(prompt) :]).split("<|im_end|>")[0]
    assert len(set(together)) > 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of the same form: 40 lines to learn from, and 6 to be asked in each of two splits."""
    folder = tmp_path_factory.mktemp("snips")
    lines = [_line(n) for n in range(52)]
    for split, part in (("train", lines[:40]), ("valid", lines[40:46]), ("test", lines[46:])):
        (folder / f"snips.{split}.jsonl").write_text("".join(part), encoding="utf-8")
    return folder


def _line(n: int) -> str:
    if n % 2:
        row = {"text": f"play song {n}", "slots": "O B-track I-track", "intent": "PlayMusic"}
    else:
        row = {"text": f"rain in {n}", "slots": "O O B-city", "intent": "GetWeather"}
    return json.dumps(row) + "\n"


@pytest.fixture
def measured(
    task: ModuleType,
    data: Path,
    tmp_path: Path,
    tiny_teacher_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[dict[str, Any], str]]:
    """Run the command line on small things; return its last line and all that it printed."""
    small = ["train.precision=no", "train.epochs=0.5", "evaluate.documents=2"]
    smaller = [*small, "student.layers=2", "student.intermediate=96", "corpus.heldout_fraction=0.1"]
    line = [
        *("task.py", "--quick", "--seed", "3", "--data", str(data), "--work", str(tmp_path)),
        *("--teacher", str(tiny_teacher_folder)),
        *(part for s in small for part in ("--set-teacher", s)),
        *(part for s in smaller for part in ("--set-student", s)),
    ]

    def run(*more: str) -> tuple[dict[str, Any], str]:
        monkeypatch.setattr("sys.argv", [*line, *more])
        task.main()
        shown = capsys.readouterr().out
        return json.loads(shown.splitlines()[-1]), shown

    return run


def test_all_of_the_path_runs_once_and_keeps_its_contract(
    measured: Callable[..., tuple[dict[str, Any], str]],
) -> None:
    found, shown = measured()
    assert "quick: rough" in shown
    assert (found["quick"], found["seed"], found["split"]) == (True, 3, "test")
    assert (found["train_utterances"], found["asked"]) == (40, 6)
    for arm in ("teacher", "student", "gold_only", "tfidf"):
        mean, low, high = found[f"{arm}_exact_match"]
        assert 0 <= low <= mean <= high <= 1
        assert found[f"{arm}_intent_accuracy"][0] >= mean
    assert found["tfidf_intent_accuracy"][0] == 1.0
    sizes = found["parameters"]
    assert found["parameter_ratio"] == sizes["student"] / sizes["teacher"] < 1
    assert found["speed_ratio"] * found["cost_ratio"] == pytest.approx(1)
    for work in ("train student", "train cross entropy", "ask teacher"):
        assert work in shown
    again, shown = measured()
    assert "train student" not in shown
    assert "ask teacher" not in shown
    changing = {"seconds", "speed_ratio", "speed_ratio_range", "cost_ratio"}
    assert {k: v for k, v in again.items() if k not in changing} == {
        k: v for k, v in found.items() if k not in changing
    }
    other, shown = measured("--on", "valid")
    assert other["split"] == "valid"
    assert "train student" not in shown
    assert "ask teacher" in shown
