from collections.abc import Callable
from typing import Any

import pytest

from limbeck.validate.judge.ballot import Ballot
from limbeck.validate.judge.endpoint import Reply
from limbeck.validate.judge.exam import Examination, sit
from limbeck.validate.judge.licence import RULES
from limbeck.validate.judge.material import gather, witnesses, wrong_by
from limbeck.validate.judge.paper import Case, set_paper


@pytest.fixture(scope="module")
def paper(sums: Any) -> tuple[Case, ...]:
    families = gather(sums.questions, sums.teacher, sums.student, sums.verified, seed=0)
    entries = families["sums"]
    return set_paper(witnesses(entries), wrong_by(None, entries), seed=0)


@pytest.fixture
def examine(
    paper: tuple[Case, ...], spoken: Any, run: Any
) -> Callable[..., tuple[Examination, int]]:
    def work(
        voice: Callable[[Ballot], str], lineage: tuple[str, ...] = ()
    ) -> tuple[Examination, int]:
        judge = spoken("judge", voice)
        return run(sit(judge, paper, lineage)), judge.asked

    return work


def test_an_oracle_passes_and_is_asked_every_case_twice(
    examine: Any, sums: Any, paper: tuple[Case, ...]
) -> None:
    exam, asked = examine(sums.oracle)
    assert exam.licensed
    assert "passed" in exam.reasons[0]
    assert asked == 2 * len(paper) == exam.figures["replies"]
    assert exam.figures["teacher_right"] == exam.figures["swap"] == 1
    assert exam.figures["padded_twin"] == 0


VOICES: dict[str, Callable[[Ballot], str]] = {
    "always-a": lambda _: "[[A]]",
    "always-b": lambda _: "[[B]]",
    "always-tie": lambda _: "[[C]]",
    "mute": lambda _: "I cannot tell.",
    "longer": lambda b: "[[A]]" if len(b.answer_a) > len(b.answer_b) else "[[B]]",
    "shorter": lambda b: "[[A]]" if len(b.answer_a) < len(b.answer_b) else "[[B]]",
}


@pytest.mark.parametrize("name", list(VOICES))
def test_a_judge_without_merit_fails_before_half_of_the_paper(
    examine: Any, paper: tuple[Case, ...], name: str
) -> None:
    exam, asked = examine(VOICES[name])
    assert not exam.licensed
    assert exam.reasons
    assert asked < len(paper)  # of twice as many


@pytest.mark.parametrize(
    ("name", "figure", "rate"),
    [
        ("always-a", "swap", 0),
        ("always-tie", "swap", 1),
        ("always-tie", "teacher_right", 0),
        ("mute", "parse", 0),
        ("longer", "padded_twin", 1),
        ("longer", "padded_wrong", 0),
        ("shorter", "truncate", 0),
    ],
)
def test_each_fault_shows_in_the_figure_that_is_made_for_it(
    examine: Any, name: str, figure: str, rate: float
) -> None:
    exam, _ = examine(VOICES[name])
    assert exam.figures[figure] == rate


def test_a_judge_that_loves_one_model_fails_on_the_other_ones_pairs(
    examine: Any, sums: Any
) -> None:
    def lover(ballot: Ballot) -> str:
        if ballot.answer_a.startswith("Adding") == ballot.answer_b.startswith("Adding"):
            return sums.oracle(ballot)
        return "[[A]]" if ballot.answer_a.startswith("Adding") else "[[B]]"

    exam, _ = examine(lover)
    assert not exam.licensed
    assert any("by the student's right answer" in reason for reason in exam.reasons)
    assert exam.figures["teacher_right"] == 1


def test_kin_is_not_asked_at_all(examine: Any, sums: Any) -> None:
    exam, asked = examine(sums.oracle, lineage=("judge",))
    assert not exam.licensed
    assert asked == 0
    assert "none judges itself" in exam.reasons[0]


def test_a_judge_that_says_it_is_kin_is_sent_away(
    paper: tuple[Case, ...], sums: Any, run: Any
) -> None:
    class Honest:
        name = "innocent"

        async def ask(self, ballot: Ballot) -> Reply:
            return Reply(sums.oracle(ballot), model="smollm2-1.7b")

    exam = run(sit(Honest(), paper, ["packaged:smollm2-135m-instruct"]))
    assert not exam.licensed
    assert exam.figures["replies"] == 2
    assert "smollm2-1.7b" in exam.reasons[0]


def test_a_judge_that_never_answers_is_asked_one_pair(paper: tuple[Case, ...], run: Any) -> None:
    class Mute:
        name = "mute"

        async def ask(self, ballot: Ballot) -> Reply:
            return Reply(None, "no answer within 60 s")

    exam = run(sit(Mute(), paper, []))
    assert exam.reasons == ("it answered none of 2 requests: no answer within 60 s",)


def test_a_judge_that_breaks_down_half_way_has_that_among_its_reasons(
    paper: tuple[Case, ...], sums: Any, run: Any
) -> None:
    class Tired:
        name = "tired"
        asked = 0

        async def ask(self, ballot: Ballot) -> Reply:
            self.asked += 1
            return Reply(sums.oracle(ballot)) if self.asked < 50 else Reply(None, "HTTP 500: ''")

    exam = run(sit(Tired(), paper, []))
    assert not exam.licensed
    assert "the last one: HTTP 500" in exam.reasons[-1]


def test_a_paper_that_cannot_be_set_costs_no_question(spoken: Any, run: Any) -> None:
    judge = spoken("judge", VOICES["always-a"])
    exam = run(sit(judge, (), []))
    assert judge.asked == 0
    assert len(exam.reasons) >= len(RULES) - 3
    assert all("cannot be set" in reason for reason in exam.reasons)
