from typing import Any

import pytest

from limbeck.distill.recipe import Recipe, parse_recipe
from limbeck.errors import RecipeError


def recipe(**changes: Any) -> Recipe:
    raw: dict[str, Any] = {
        "name": "r",
        "teacher": {"model": "openai:m", "api": {"base_url": "http://127.0.0.1:1/v1"}},
        "corpus": {"files": ["a.jsonl"]},
        "generate": {},
        "student": {"layers": 2, "base": "somewhere"},
        "loss": {"kind": "cross_entropy"},
    }
    for dotted, value in changes.items():
        *sections, last = dotted.split("__")
        target = raw
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return parse_recipe(raw)


def test_a_teacher_behind_an_api_needs_no_more_than_this() -> None:
    assert recipe().teacher.is_remote


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teacher__api": None}, "needs an api section with base_url"),
        ({"teacher__model": "packaged:m"}, "goes with a model openai:NAME"),
        ({"teacher__api": {"base_url": "https://u:p@x/v1"}}, "key_variable"),
        ({"teacher__api__key_variable": "sk-123"}, "key_variable"),
        ({"teacher__api__extra": {"temperature": 1.0}}, "has temperature in extra"),
        ({"teacher__api__extra": {"stream": True}}, "has stream in extra"),
        ({"teacher__api__limits__max_cost": 1.0}, "needs prompt_price"),
        ({"loss__kind": "forward_kl"}, 'set loss.kind = "cross_entropy"'),
        ({"loss__kind": "jsd", "teacher__api__top_logprobs": 5}, "forward_kl and cross_entropy"),
        (
            {
                "loss": {"kind": "forward_kl", "coarse_tail": True},
                "teacher__api__top_logprobs": 5,
            },
            "with coarse_tail",
        ),
        ({"capture__temperature": 2.0}, "temperature"),
        ({"capture__bytes_per_token": 8.0}, "has capture.bytes_per_token"),
        ({"capture__max_head": 4}, "has capture.max_head"),
        ({"capture__workers": 2}, r"capture\.workers = 1"),
        ({"student": {"layers": 2}}, "needs student.base"),
        (
            {"student": {"init": "folder", "folder": "x", "vocabulary": 9}},
            r"student\.vocabulary, which needs",
        ),
        ({"on_policy": {"fraction": 0.5}}, "on_policy, which needs the teacher's weights"),
        ({"validate": {}}, "validate, which needs the teacher's weights"),
        ({"student": {"init": "folder", "folder": "x", "base": "y"}}, "has student.base"),
        ({"generate": None}, r"needs \[generate\]"),
        ({"teacher__api__prompt_logprobs": 5}, r"needs \[generate\]"),
        (
            {"train__positions": 0.5, "train__position_choice": "teacher_entropy"},
            "teacher_entropy",
        ),
        ({"filter": {}, "generate": None, "teacher__api__prompt_logprobs": 5}, r"has \[filter\]"),
        ({"filter": {"answer_pattern": "(a)"}}, "matches_reference = true"),
        ({"filter": {"answer_pattern": "a", "matches_reference": True}}, "needs a group"),
        ({"filter": {"min_tokens": 5, "max_tokens": 4}}, "min_tokens"),
    ],
)
def test_what_such_a_teacher_cannot_do_is_refused_before_anything_is_sent(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        recipe(**changes)


def test_a_base_goes_with_an_api_alone() -> None:
    with pytest.raises(RecipeError, match="goes with a teacher behind an API"):
        recipe(teacher={"model": "packaged:m"})


def test_a_secret_in_an_address_is_not_repeated() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(teacher__api={"base_url": "https://user:s3cret@x/v1"})
    assert "s3cret" not in str(caught.value)
