from typing import Any

import pytest

from limbeck.distill.apart import apart
from limbeck.distill.recipe import Recipe, parse_recipe
from limbeck.errors import RecipeError

ALIGNED: dict[str, Any] = {"align": {}, "student": {"init": "folder", "folder": "other"}}
TOLD: dict[str, Any] = {"teacher": {"model": "big", "system": "Be brief."}}


def recipe(sides: dict[str, Any], **changes: Any) -> Recipe:
    plain: dict[str, Any] = {
        "name": "r",
        "teacher": {"model": "big"},
        "corpus": {"files": ["a.jsonl"]},
        "generate": {},
        "student": {"layers": 2},
    }
    raw = {**plain, **sides}
    for dotted, value in changes.items():
        *sections, last = dotted.split("__")
        target = raw
        for section in sections:
            target[section] = dict(target.get(section, {}))
            target = target[section]
        target[last] = value
    return parse_recipe(raw)


def test_who_reads_apart_is_known_from_the_recipe() -> None:
    assert apart(recipe({})) is None
    assert apart(recipe(ALIGNED)) == apart(recipe(ALIGNED | TOLD)) == "[align]"
    assert apart(recipe(TOLD)) == "a prompt for the teacher alone"


API: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize("sides", [ALIGNED, TOLD], ids=["another tokenizer", "a prompt"])
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"teacher__model": "openai:m", "teacher__api": API}, "a teacher behind an API"),
        ({"on_policy": {"fraction": 0.5}}, "on_policy"),
        # What a reader must change is said before what is only too long.
        ({"on_policy": {"max_new_tokens": 512}}, "on_policy"),
        ({"student__vocabulary": 380}, r"student\.vocabulary"),
        ({"filter": {"finished": True}}, "filter"),
    ],
)
def test_what_needs_one_text_for_both_is_refused(
    sides: dict[str, Any], changes: dict[str, Any], what: str
) -> None:
    with pytest.raises(RecipeError, match=rf"has {what} and .*do not go together.*leave one out"):
        recipe(sides, **changes)


@pytest.mark.parametrize("sides", [ALIGNED, TOLD], ids=["another tokenizer", "a prompt"])
def test_a_teacher_that_is_asked_nothing_is_refused(sides: dict[str, Any]) -> None:
    silent = {"capture__targets": "none", "loss__kind": "cross_entropy"}
    with pytest.raises(RecipeError, match=r'has capture\.targets = "none" and'):
        recipe({**sides, "generate": None}, **silent)


def test_several_answers_go_with_a_prompt_and_not_with_another_tokenizer() -> None:
    assert recipe(TOLD, generate__samples=2).generate
    with pytest.raises(RecipeError, match=r"generate\.samples above 1 and \[align\]"):
        recipe(ALIGNED, generate__samples=2)


def test_a_verdict_goes_with_another_tokenizer_and_not_with_a_prompt_it_would_not_read() -> None:
    assert recipe(ALIGNED, validate={}).validation
    with pytest.raises(RecipeError, match="validate and a prompt for the teacher alone"):
        recipe(TOLD, validate={})


def test_adapters_go_with_both() -> None:
    for sides in (ALIGNED, TOLD):
        assert recipe(sides, student__lora={"rank": 2}).student.lora
