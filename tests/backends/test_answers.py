import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.backends.answers import Answers, completion_json, completion_of
from limbeck.chat import Choice, Completion
from limbeck.errors import TeacherError

LOGS = st.floats(-100, 0)
CHOICES = st.builds(
    Choice,
    st.binary(max_size=6),
    st.none() | LOGS,
    st.lists(st.tuples(st.binary(max_size=4), LOGS), max_size=3).map(tuple),
)
COUNTS = st.none() | st.integers(0, 1000)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
COMPLETIONS = st.builds(
    Completion,
    TEXTS,
    st.sampled_from(["stop", "length"]),
    TEXTS,
    COUNTS,
    COUNTS,
    st.none() | st.lists(CHOICES, max_size=3).map(tuple),
    st.none()
    | st.lists(
        st.lists(st.tuples(st.integers(0, 9), LOGS, TEXTS), max_size=2).map(tuple), max_size=2
    ).map(tuple),
)
ONE = Completion("One", "stop", "m", 3, 4)
TWO = Completion("Zwei\nZeilen", "length", "m", None, None)


@given(completion=COMPLETIONS)
def test_an_answer_comes_back_as_it_went(completion: Completion) -> None:
    text = json.dumps(completion_json(completion), ensure_ascii=False)
    assert completion_of(json.loads(text)) == completion


def test_answers_are_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "answers.jsonl"
    with Answers(path) as answers:
        answers.append("first", ONE)
        answers.append("second", TWO)
        assert answers.get("first") == ONE
    with Answers(path) as answers:
        assert (answers.get("first"), answers.get("second"), answers.get("third")) == (
            ONE,
            TWO,
            None,
        )
        assert answers.known == {"first": (3, 4), "second": (None, None)}
        answers.append("third", ONE)
        assert len(answers) == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_a_crash_within_a_line_costs_that_line_alone(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "answers.jsonl"
    path.unlink(missing_ok=True)
    with Answers(path) as answers:
        answers.append("first", ONE)
        whole = path.stat().st_size
        answers.append("second", TWO)
    kept = data.draw(st.integers(whole, path.stat().st_size - 1))
    with path.open("r+b") as file:
        file.truncate(kept)
    with Answers(path) as answers:
        assert (answers.get("first"), answers.get("second")) == (ONE, None)
        answers.append("second", TWO)
        assert answers.get("second") == TWO
    with Answers(path) as answers:
        assert len(answers) == 2


@pytest.mark.parametrize("damage", [b"{}", b"no json", b'{"ask": "x", "answer": {}, "sha256": ""}'])
def test_a_damaged_line_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    with Answers(path) as answers:
        answers.append("first", ONE)
    path.write_bytes(path.read_bytes() + damage + b"\n")
    with pytest.raises(TeacherError, match=r"answers\.jsonl line 2 is damaged"):
        Answers(path)


def test_a_changed_letter_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with Answers(path) as answers:
        answers.append("first", ONE)
    path.write_bytes(path.read_bytes().replace(b"One", b"Two"))
    with pytest.raises(TeacherError, match="line 1 is damaged"):
        Answers(path)
