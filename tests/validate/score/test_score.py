"""Each way of scoring written answers, on answers as models write them."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import TaskError
from limbeck.validate.score.choice import Likelihoods, choose, normalised
from limbeck.validate.score.exact import exact
from limbeck.validate.score.numeric import number, numeric
from limbeck.validate.score.pattern import pattern
from limbeck.validate.score.program import program, run_tests, source
from limbeck.validate.score.structure import structure
from limbeck.validate.tasks import Item


@pytest.mark.parametrize(
    ("text", "gold", "score"),
    [
        ("Paris", "Paris", 1),
        ("  paris. ", "Paris", 1),
        ("Paris\n\nIt is the capital.", "Paris", 1),
        ("“São  Paulo”", "são paulo", 1),
        ("It is Paris", "Paris", 0),
        ("", "Paris", 0),
    ],
)
def test_exact_match_forgives_case_space_and_edges_alone(
    text: str, gold: str, score: float
) -> None:
    assert exact(text, gold) == score


@given(st.text())
def test_every_text_matches_itself(text: str) -> None:
    assert exact(text, text) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("She pays $1,234.50 in all.", 1234.5),
        ("3 + 4 = 7, so the answer is 7 apples, not 8", 7),
        (r"Thus \boxed{2/3}.", 2 / 3),
        ("#### -12", -12),
        ("−4 degrees", -4),
        ("1e3", 1000),
        ("none", None),
        ("1/0", None),
    ],
)
def test_the_number_that_an_answer_ends_in_is_read(text: str, found: float | None) -> None:
    assert number(text) == pytest.approx(found)


@given(st.integers(-(10**9), 10**9))
def test_a_number_written_in_any_usual_way_is_right(value: int) -> None:
    for text in (f"{value}", f"The answer is {value:,}.", f"5 and then #### {value}"):
        assert numeric(text, str(value), tolerance=0) == 1
    assert numeric(f"{value + 1}", str(value), tolerance=0) == 0


def test_tolerance_is_relative() -> None:
    assert numeric("101", "100", tolerance=0.01) == 1
    assert numeric("102", "100", tolerance=0.01) == 0


def test_gold_without_a_number_or_pattern_is_an_error_of_the_task() -> None:
    with pytest.raises(TaskError, match="holds no number"):
        numeric("1", "many", tolerance=0)
    with pytest.raises(TaskError, match="no regular expression"):
        pattern("a", "(")


def test_a_pattern_is_searched_and_a_hostile_one_gives_up() -> None:
    assert pattern("my colour is red", r"\bcolou?r\b") == 1
    assert pattern("nothing", r"\bcolou?r\b") == 0
    begun = time.monotonic()
    assert pattern("a" * 40 + "b", r"^(a|aa)+$|^(a+)+c$") == 0
    assert time.monotonic() - begun < 10


SCHEMA = {
    "type": "object",
    "required": ["name", "age"],
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
}
GOLD = json.dumps({"name": "Anna", "age": 31})


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"name": "Anna", "age": 31}', 1),
        ('Here it is:\n```json\n{"age": 31, "name": "Anna", "town": "Ghent"}\n```\nDone.', 1),
        ('{"name": "Anna", "age": "31"}', 0),
        ('{"name": "Anna", "age": 32}', 0),
        ('{"name": "Anna"}', 0),
        ('{"name": "Anna", "age": 31', 0),
        ("Anna, 31", 0),
        ('[{"name": "Anna", "age": 31}]', 0),
    ],
)
def test_json_must_fit_the_schema_and_hold_the_gold_values(text: str, score: float) -> None:
    assert structure(text, GOLD, SCHEMA) == score


def test_true_is_not_1_in_json() -> None:
    assert structure('{"a": true}', '{"a": 1}', {}) == 0
    assert structure('{"a": true}', '{"a": true}', {}) == 1


def test_a_right_program_passes_and_a_wrong_one_does_not() -> None:
    tests = "assert double(4) == 8"
    right = "Sure:\n```python\ndef double(x):\n    return 2 * x\n```\nThat is it."
    assert source(right) == "def double(x):\n    return 2 * x\n"
    assert program(right, tests, timeout_s=5) == 1
    assert program(right.replace("2 *", "3 *"), tests, timeout_s=5) == 0
    assert program("def double(x) return", tests, timeout_s=5) == 0


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "while True: pass",
        "held = [0] * 10**10",
        "import time; time.sleep(60)",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'], check=True)",
        "open('big', 'w').write('x' * 10**7)",
        "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)",
    ],
)
def test_leaving_early_running_on_and_reaching_out_are_no_success(code: str) -> None:
    assert not run_tests(code, "pass", timeout_s=1)


def test_a_program_sees_no_environment_and_may_use_the_standard_library() -> None:
    tests = (
        "import os, json, re, math\nassert not [k for k in os.environ if not k.startswith('LC_')]"
    )
    assert run_tests("", tests, timeout_s=5)


ITEM = Item("1", "?", "bb", 0.5, "1", ("a", "bb"))


def test_likelihoods_are_ranked_by_the_stated_length() -> None:
    said = Likelihoods((-2.0, -3.0), (1, 3))
    assert normalised(said, ITEM.choices, "bytes") == [-2.0, -1.5]
    assert normalised(said, ITEM.choices, "tokens") == [-2.0, -1.0]
    assert normalised(said, ITEM.choices, "none") == [-2.0, -3.0]
    assert choose(ITEM, said, "bytes").score == 1
    assert choose(ITEM, said, "none").score == 0


def test_a_tie_shares_the_score() -> None:
    chosen = choose(ITEM, Likelihoods((-1.0, -1.0), (1, 1)), "none")
    assert chosen.score == 0.5
    assert chosen.confidence == pytest.approx(0.5)
