"""Verdicts, controls, fidelity and the promise, on scores made for the purpose."""

import numpy as np
import pytest

from limbeck.errors import RecipeError, ScoringError
from limbeck.stats.paired import Paired, pair
from limbeck.stats.retention import retention
from limbeck.validate import controls
from limbeck.validate.fidelity import (
    agreement,
    calibration_error,
    is_refusal,
    length_distance,
    writing,
)
from limbeck.validate.margin import Promise, check_margin, check_names
from limbeck.validate.outcome import Outcome, paired, verified
from limbeck.validate.verdict import decide, each_task


def task(kept: float, n: int = 600, seed: int = 0) -> Paired:
    """A teacher right on 0.9; a student that loses a share of these and gains a few."""
    rng = np.random.default_rng(seed)
    teacher = rng.random(n) < 0.9
    student = (teacher & (rng.random(n) < kept)) | (~teacher & (rng.random(n) < 0.3))
    return pair(list(teacher.astype(float)), list(student.astype(float)), 0.0)


def verdict(tasks: list[Paired], margin: float = 0.9, known: list[controls.Control] | None = None):
    return decide(retention(tasks), tasks, margin, known or [])


def test_three_students_get_the_three_verdicts() -> None:
    assert verdict([task(0.99)]).kind == "KEEPS"
    assert verdict([task(0.6)]).kind == "LOSES"
    unsure = verdict([task(0.88, n=150)])
    assert unsure.kind == "CANT_TELL"
    assert unsure.more_items is not None
    assert f"{unsure.more_items:,} more items" in unsure.because


def test_as_many_more_items_as_asked_for_settle_it_mostly() -> None:
    settled = 0
    for seed in range(40):
        small = task(0.82, n=100, seed=seed)
        found = verdict([small])
        if found.kind != "CANT_TELL" or found.more_items is None:
            settled += 1
            continue
        settled += verdict([task(0.82, n=100 + found.more_items, seed=seed)]).kind != "CANT_TELL"
    assert settled / 40 >= 0.6


def test_a_teacher_at_chance_allows_no_claim() -> None:
    flat = pair([1, 0] * 100, [0, 1] * 100, 0.5)
    found = verdict([flat])
    assert found.kind == "CANT_TELL"
    assert "no claim is possible" in found.because


def test_a_control_that_misbehaves_takes_the_claim_away() -> None:
    same = controls.damaged_student([task(0.99)], 0.9, how="nothing", confidence=0.95, seed=0)
    assert same.state == "misbehaves"
    found = verdict([task(0.99)], known=[same])
    assert found.kind == "CANT_TELL"
    assert "“damaged” misbehaves" in found.because


def test_a_damaged_student_that_is_not_told_apart_allows_no_keeps_but_a_loses() -> None:
    blind = controls.damaged_student(
        [task(0.88, n=150)], 0.9, how="little", confidence=0.95, seed=0
    )
    assert blind.state == "undecided"
    assert verdict([task(0.99)], known=[blind]).kind == "CANT_TELL"
    assert verdict([task(0.6)], known=[blind]).kind == "LOSES"


def test_the_teacher_against_itself_is_as_expected_and_against_another_is_not() -> None:
    same = pair([1, 0, 1, 1] * 100, [1, 0, 1, 1] * 100, 0.0)
    assert controls.teacher_again([same], confidence=0.95, seed=0).state == "as expected"
    assert controls.teacher_again([task(0.7)], confidence=0.95, seed=0).state == "misbehaves"


def test_a_start_that_is_better_than_the_student_misbehaves() -> None:
    student_worse = task(0.7)
    swapped = Paired(
        student_worse.student_I,
        student_worse.teacher_I,
        student_worse.chance_I,
        student_worse.cluster_I,
    )
    better = controls.undistilled_start([swapped], [task(0.99)], confidence=0.95, seed=0)
    worse = controls.undistilled_start([student_worse], [task(0.5)], confidence=0.95, seed=0)
    assert (better.state, worse.state) == ("misbehaves", "as expected")


def test_single_tasks_are_corrected_for_their_number() -> None:
    alone = each_task({"a": task(0.95, n=400)}, 0.9, confidence=0.95, seed=0)[0]
    among = each_task(
        {"a": task(0.95, n=400), **{f"t{i}": task(0.9, n=100, seed=i) for i in range(6)}},
        0.9,
        confidence=0.95,
        seed=0,
    )[0]
    assert among.p_keeps > alone.p_keeps
    assert among.retention == alone.retention


def test_a_promise_has_one_hash_and_every_change_another() -> None:
    made = Promise(0.9, "t", "s", {"a": "1"}, 0, False)
    assert made.sha256 == Promise(0.9, "t", "s", {"a": "1"}, 0, False).sha256
    others = [
        Promise(0.8, "t", "s", {"a": "1"}, 0, False),
        Promise(0.9, "t", "s", {"a": "2"}, 0, False),
        Promise(0.9, "t", "x", {"a": "1"}, 0, False),
        Promise(0.9, "t", "s", {"a": "1"}, 1, False),
        Promise(0.9, "t", "s", {"a": "1"}, 0, True),
    ]
    assert len({made.sha256, *(o.sha256 for o in others)}) == 6


@pytest.mark.parametrize("margin", [0, -1, 1.01, float("nan")])
def test_a_margin_that_cannot_be_is_refused(margin: float) -> None:
    with pytest.raises(RecipeError, match="margin must be above 0 and at most 1"):
        check_margin(margin)


def test_two_tasks_of_one_name_are_refused() -> None:
    with pytest.raises(RecipeError, match="two tasks are called a"):
        check_names(["a", "b", "a"])


def rows(*scores: float, text: str | None = None) -> list[Outcome]:
    return [Outcome(str(i), str(i), 0.0, s, text) for i, s in enumerate(scores)]


def test_outcomes_are_paired_by_item_and_not_by_place() -> None:
    teacher, student = rows(1, 0, 1), rows(0, 1, 1)[::-1]
    assert paired(teacher, student).student_I.tolist() == [0, 1, 1]
    with pytest.raises(ScoringError, match="'2' has one score"):
        paired(teacher, student[1:])
    assert [v.item for v in verified("t", teacher, student)] == ["t/0", "t/1", "t/2"]


def test_agreement_counts_choices_and_texts_and_flips() -> None:
    teacher = [Outcome("1", "1", 0.5, 1, choice=0), Outcome("2", "2", 0.5, 0, choice=1)]
    student = [Outcome("1", "1", 0.5, 0, choice=1), Outcome("2", "2", 0.5, 0, choice=1)]
    found = agreement("t", teacher, student)
    assert found is not None
    assert (found.same.value, found.flipped.value) == (0.5, 0.5)
    written = agreement("t", rows(1, text="Paris."), rows(1, text=" paris"))
    assert written is not None
    assert written.same.value == 1
    assert agreement("t", rows(1), rows(1)) is None


def test_calibration_error_is_0_for_an_honest_model_and_large_for_a_boaster() -> None:
    honest = [Outcome(str(i), "", 0.5, float(i % 4 != 0), confidence=0.75) for i in range(400)]
    boaster = [Outcome(str(i), "", 0.5, float(i % 2), confidence=0.99) for i in range(400)]
    assert calibration_error(honest) == pytest.approx(0)
    assert calibration_error(boaster) == pytest.approx(0.49)
    assert calibration_error(rows(1, 0)) is None


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("As an AI language model, I", True),
        ("I cannot do that.", True),
        ("I can do that.", False),
        ("The king said sorry.", False),
        ("", False),
    ],
)
def test_refusals_are_known_by_their_opening(text: str, refuses: bool) -> None:
    assert is_refusal(text) is refuses


def test_lengths_are_compared_as_distributions() -> None:
    short, long = rows(1, 1, text="one two"), rows(1, 1, text="one two three four")
    assert length_distance(short, long) == 1
    assert length_distance(short, short) == 0
    figures = writing(short)
    assert figures is not None
    assert figures.words == (2, 2, 2)
    assert writing(rows(1)) is None


def test_noise_damages_a_copy_and_its_strength_orders_it() -> None:
    import torch

    from limbeck.model import LocalModel

    layer = torch.nn.Linear(16, 16)
    local = LocalModel("m", layer, None, "0" * 64, "0" * 64, None, None)
    before = layer.weight.detach().clone()
    off = [
        float((controls.damaged(local, strength=s, seed=1).model.weight.detach() - before).norm())
        for s in (0.0, 0.1, 1.0)
    ]
    assert off[0] == 0
    assert off[1] < off[2]
    assert torch.equal(layer.weight.detach(), before)
