from collections import Counter

import pytest

from limbeck.validate.judge.paper import DAMAGED, KNOWN, Witness, set_paper


def _witness(i: int, teacher: bool, student: bool, cluster: str | None = None) -> Witness:
    return Witness(
        item=f"{i}",
        cluster=cluster or f"{i}",
        question=f"What is {i} and {i}?",
        teacher=f"Added together that makes {2 * i if teacher else 2 * i + 7} in all.",
        student=f"It is {2 * i if student else 2 * i + 5}.",
        teacher_score=float(teacher),
        student_score=float(student),
    )


def _wrong(item: str, text: str) -> bool:
    return str(2 * int(item)) not in text.replace(".", "").split()


def _always_wrong(_: str, __: str) -> bool:
    return True


@pytest.fixture
def witnesses() -> list[Witness]:
    return [_witness(i, i % 4 != 0, i % 3 != 0) for i in range(10, 610)]


def test_the_left_answer_of_every_case_is_right_and_the_right_one_wrong_or_padded(
    witnesses: list[Witness],
) -> None:
    item = {w.question: w.item for w in witnesses}
    paper = set_paper(witnesses, _wrong, seed=0)
    for case in paper:
        assert not _wrong(item[case.duel.question], case.duel.left)
        if case.part == "padded twin":
            assert case.duel.right.startswith(case.duel.left)
        else:
            assert _wrong(item[case.duel.question], case.duel.right)


def test_a_full_paper_has_all_parts_and_no_item_twice_in_one(witnesses: list[Witness]) -> None:
    paper = set_paper(witnesses, _wrong, seed=0)
    counts = Counter(case.part for case in paper)
    assert counts["teacher right"] == counts["student right"] == KNOWN
    others = {"truncate", "shuffle", "negate", "off-topic", "padded twin", "padded wrong"}
    assert {counts[part] for part in others} == {DAMAGED}
    pairs = [(case.part, case.duel.question) for case in paper]
    assert len(set(pairs)) == len(pairs)


def test_natural_pairs_are_the_answers_of_both_models(witnesses: list[Witness]) -> None:
    by_question = {w.question: w for w in witnesses}
    for case in set_paper(witnesses, _wrong, seed=1):
        w = by_question[case.duel.question]
        if case.part == "teacher right":
            assert (case.duel.left, case.duel.right) == (w.teacher, w.student)
        if case.part == "student right":
            assert (case.duel.left, case.duel.right) == (w.student, w.teacher)


def test_a_padded_wrong_answer_is_longer_than_the_right_one_and_comes_from_both_models(
    witnesses: list[Witness],
) -> None:
    cases = [c.duel for c in set_paper(witnesses, _wrong, seed=0) if c.part == "padded wrong"]
    assert all(len(duel.right) > 2 * len(duel.left) for duel in cases)
    assert sum(duel.right.startswith("It is") for duel in cases) == DAMAGED // 2


def test_one_item_of_a_cluster_counts_for_a_rule(witnesses: list[Witness]) -> None:
    together = [
        _witness(i, i % 2 == 0, i % 2 == 1, cluster=f"user {i % 7}") for i in range(10, 110)
    ]
    counts = Counter(case.part for case in set_paper(together, _wrong, seed=0))
    assert max(counts.values()) == 7


def test_the_same_seed_sets_the_same_paper(witnesses: list[Witness]) -> None:
    assert set_paper(witnesses, _wrong, seed=3) == set_paper(witnesses, _wrong, seed=3)
    assert set_paper(witnesses, _wrong, seed=3) != set_paper(witnesses, _wrong, seed=4)


def test_equal_and_empty_answers_make_no_pair() -> None:
    same = Witness("1", "1", "Why?", "Because", "Because ", 1.0, 0.0)
    empty = Witness("2", "2", "Why?", "Because", " ", 1.0, 0.0)
    near = Witness("3", "3", "Why?", "Because", "So", 0.9, 0.6)
    parts = {case.part for case in set_paper([same, empty, near], _always_wrong, seed=0)}
    assert not parts & {"teacher right", "student right", "padded wrong"}


def test_no_witnesses_make_an_empty_paper() -> None:
    assert set_paper([], _wrong, seed=0) == ()


def test_an_answer_that_only_the_scorer_refuses_is_no_known_loser() -> None:
    form = Witness("7", "7", "What is 7 and 7?", "14", "So: 14, I think", 1.0, 0.0)
    assert not any(case.part == "teacher right" for case in set_paper([form], _wrong_14, seed=0))


def _wrong_14(_: str, text: str) -> bool:
    return "14" not in text
