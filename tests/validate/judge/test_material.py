from dataclasses import replace
from typing import Any

import pytest

from limbeck.errors import JudgeError
from limbeck.validate.judge.material import gather, witnesses, wrong_by
from limbeck.validate.ledger import Answer, Question, VerifiedOutcome


def _entries(sums: Any, seed: int = 0) -> Any:
    return gather(sums.questions, sums.teacher, sums.student, sums.verified, seed=seed)["sums"]


def test_the_verified_half_that_examines_is_not_the_one_that_corrects(make_sums: Any) -> None:
    entries = _entries(make_sums(100, verified=60))
    uses = [e.use for e in entries]
    assert (uses.count("examine"), uses.count("correct"), uses.count("vote")) == (30, 30, 40)
    examined = {w.item for w in witnesses(entries)}
    assert examined == {e.question.item for e in entries if e.use == "examine"}


def test_a_cluster_is_not_cut_in_two(make_sums: Any) -> None:
    sums = make_sums(100)
    clustered = [
        VerifiedOutcome(o.item, f"user {i % 9}", o.teacher, o.student)
        for i, o in enumerate(sums.verified)
    ]
    entries = gather(sums.questions, sums.teacher, sums.student, clustered, seed=1)["sums"]
    uses = {(e.cluster, e.use) for e in entries}
    assert len(uses) == 9


def test_the_split_does_not_look_at_scores(make_sums: Any) -> None:
    sums = make_sums(100)
    turned = [VerifiedOutcome(o.item, o.cluster, o.student, o.teacher) for o in sums.verified]
    other = gather(sums.questions, sums.teacher, sums.student, turned, seed=0)["sums"]
    assert [e.use for e in other] == [e.use for e in _entries(sums)]


def test_the_students_share_of_a_verified_win_is_one_half_or_nothing(sums: Any) -> None:
    for e in _entries(sums):
        assert e.outcome is not None
        lead = e.outcome.student - e.outcome.teacher
        assert e.won == {1: 1.0, 0: 0.5, -1: 0.0}[int(lead)]
        assert e.duel.left == e.student


def test_an_answer_is_wrong_if_neither_scorer_nor_gold_can_be_found_in_it() -> None:
    q = Question("t/1", "t", "Capital?", "Den Haag")
    answers = [Answer("t/1", "It is Den Haag.")]
    entries = gather([q], answers, answers, [], seed=0)["t"]
    by_gold = wrong_by(None, entries)
    assert not by_gold("t/1", "I say den haag!")
    assert by_gold("t/1", "Haag Den")
    assert by_gold("t/1", "Den Haagen")
    both = wrong_by(lambda _, text: float(text == "x"), entries)
    assert not both("t/1", "x")
    assert not both("t/1", "Den Haag, in a form that the scorer does not take")
    assert both("t/1", "Leiden")


def test_without_gold_damage_alone_makes_an_answer_wrong() -> None:
    answers = [Answer("t/1", "Once upon a time")]
    entries = gather([Question("t/1", "t", "Tell!")], answers, answers, [], seed=0)["t"]
    assert wrong_by(None, entries)("t/1", "Once upon")


@pytest.mark.parametrize(
    ("field", "kept", "added", "message"),
    [
        ("questions", slice(None), 0, "sums/0 has several"),
        ("teacher", slice(1, None), None, "teacher has no answer to 1 of 20 items.*sums/0"),
        ("student", slice(-2), None, "student has no answer to 2 of 20 items.*sums/18"),
        ("student", slice(None), Answer("x", ""), "student's answer belongs to x"),
        ("verified", slice(None), 3, "verified outcome.*sums/3"),
        ("verified", slice(None), VerifiedOutcome("y", "y", 1, 1), "outcome belongs to y"),
    ],
    ids=["twice", "teacher", "student", "stranger", "outcome-twice", "outcome-stranger"],
)
def test_answers_that_do_not_fit_the_questions_are_refused(
    make_sums: Any, field: str, kept: slice, added: Any, message: str
) -> None:
    sums = make_sums(20)
    rows = getattr(sums, field)
    more = [] if added is None else [rows[added] if isinstance(added, int) else added]
    with pytest.raises(JudgeError, match=message):
        _entries(replace(sums, **{field: [*rows[kept], *more]}))
