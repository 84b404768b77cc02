from typing import Any

import numpy as np
import pytest

from limbeck.chat import Message
from limbeck.distill.filter import Candidate
from limbeck.distill.judging import question, read_score
from limbeck.distill.recipe import JudgeRecipe
from limbeck.errors import RecipeError


def judge(**changes: Any) -> JudgeRecipe:
    values = {"model": "openai:j", "api": {"base_url": "http://x/v1"}, "min_score": 6}
    return JudgeRecipe.model_validate(values | changes)


def candidate(*turns: Message, answer: str = "It is {late}.") -> Candidate:
    return Candidate(turns, answer, "On time.", True, np.zeros(3, np.int32), False, 0)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("7", 7),
        (" 10\n", 10),
        ("6.5", 6.5),
        ("1", 1),
        ("0", None),
        ("11", None),
        ("-3", None),
        ("7/10", None),
        ("Score: 7", None),
        ("7 because it is good", None),
        ("seven", None),
        ("", None),
        ("7 8", None),
        ("٧", None),
        ("1e1", None),
        ("nan", None),
    ],
)
def test_a_score_is_a_number_on_the_scale_and_nothing_else(reply: str, score: float | None) -> None:
    assert read_score(reply, judge()) == score


def test_the_question_holds_what_was_asked_and_answered_braces_and_all() -> None:
    asked = question(judge(), candidate(Message("user", "When {will} it come?")))
    assert "When {will} it come?" in asked
    assert "It is {late}." in asked
    assert "from 1 (useless) to 10" in asked


def test_a_question_of_ones_own_may_show_the_reference() -> None:
    own = judge(question="{reference} | {answer}")
    assert question(own, candidate(Message("user", "When?"))) == "On time. | It is {late}."


def test_a_conversation_is_shown_with_its_roles() -> None:
    turns = (Message("system", "Be brief."), Message("user", "When?"))
    assert "system: Be brief.\n\nuser: When?" in question(judge(), candidate(*turns))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"question": "Rate {this}."}, "has {this}; known are prompt"),
        ({"question": "Rate."}, "lacks {answer}"),
        ({"question": "Rate {answer"}, "malformed"),
        ({"min_score": 11}, "min_score"),
        ({"model": "packaged:j"}, "pattern"),
        ({"api": {"base_url": "http://x/v1", "top_logprobs": 2}}, "logprobs"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, RecipeError), match=says):
        judge(**changes)
