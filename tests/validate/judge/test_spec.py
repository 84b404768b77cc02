from typing import Any

import pytest

from limbeck.errors import JudgeError
from limbeck.validate.judge.spec import JudgeSpec, check_precision, parse_judge, parse_judges


def test_a_judge_is_named_with_its_url_and_its_key_comes_from_the_environment() -> None:
    spec = parse_judge(
        "my-judge.1=https://judge.example/v1", {"LIMBECK_JUDGE_KEY_MY_JUDGE_1": "secret"}
    )
    assert spec.name == "my-judge.1"
    assert spec.url == "https://judge.example/v1/chat/completions"
    assert spec.key == "secret"
    assert "secret" not in repr(spec)


def test_a_url_may_hold_equals_signs() -> None:
    assert parse_judge("j=http://127.0.0.1:1/v1?a=b", {}).url.startswith("http://127.0.0.1:1/")


@pytest.mark.parametrize("text", ["", "gold", "=http://127.0.0.1", "gold="])
def test_what_is_not_a_name_and_a_url_is_refused(text: str) -> None:
    with pytest.raises(JudgeError, match="NAME=URL"):
        parse_judge(text, {})


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://host/v1", "http://", "http://[::1"])
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(JudgeError, match="judge gold"):
        parse_judge(f"gold={url}", {})


def test_a_key_does_not_travel_in_the_clear_to_another_machine() -> None:
    keys = {"LIMBECK_JUDGE_KEY_GOLD": "secret"}
    with pytest.raises(JudgeError, match="use https") as refused:
        parse_judge("gold=http://judge.example/v1", keys)
    assert "secret" not in str(refused.value)
    assert parse_judge("gold=http://127.0.0.1:8000/v1", keys).key == "secret"


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"retries": -1}, {"max_tokens": 0}, {"timeout": 0.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(JudgeError, match=next(iter(wrong))):
        JudgeSpec("gold", "http://127.0.0.1/v1/chat/completions", **wrong)


def test_two_judges_of_one_name_are_refused() -> None:
    texts = ["gold=http://127.0.0.1:1", "gold=http://127.0.0.1:2"]
    with pytest.raises(JudgeError, match="a name of its own"):
        parse_judges(texts, {})
    assert [j.name for j in parse_judges(["a=http://127.0.0.1:1", "b=http://h"], {})] == ["a", "b"]


@pytest.mark.parametrize("precision", [0.0, 0.5, -1.0, float("nan")])
def test_a_precision_at_which_nothing_could_stop_is_refused(precision: float) -> None:
    with pytest.raises(JudgeError, match="precision"):
        check_precision(precision)
    check_precision(None)
    check_precision(0.1)
