"""Text is compared with other candidates beside the teacher, and ranked among references."""

import pytest

from limbeck.trace.coins import Pair
from limbeck.trace.likest import leads, overlap, text_finding

PAIRS = [Pair(f"p{i}", f"the mill {i} grinds flour", f"a boat {i} on the river") for i in range(6)]
LIKE_TEACHER = [p.y0 for p in PAIRS]
LIKE_OTHER = [f"nothing of it {i} is alike" for i in range(6)]
OTHER = {"other": LIKE_OTHER}


def test_the_lead_is_the_teachers_overlap_less_the_likest_others():
    found = text_finding(PAIRS, LIKE_TEACHER, OTHER, {"base": LIKE_OTHER})
    assert found.value.startswith("teacher 0.500, other 0.000; the teacher's lead +0.500 [+0.500")
    assert found.value.endswith("p = 0.5 among 1 references")
    assert found.likeness == 1
    assert leads(PAIRS, LIKE_OTHER, OTHER).mean() == pytest.approx(-1)


def test_two_answers_of_the_teacher_count_no_more_than_one_of_a_candidate():
    """Whoever writes the teacher's first answers is as near to a twin that wrote first and second ones by turns."""
    twin = [p.y0 if i % 2 else p.y1 for i, p in enumerate(PAIRS)]
    assert leads(PAIRS, LIKE_TEACHER, {"twin": twin}).mean() == pytest.approx(0)


def test_among_several_others_the_likest_is_beaten():
    several = {"far": LIKE_OTHER, "near": LIKE_TEACHER}
    found = text_finding(PAIRS, LIKE_TEACHER, several, {})
    assert "the teacher's lead -0.500" in found.value
    assert found.likeness == 0


def test_without_another_candidate_there_is_no_likest():
    with pytest.raises(ValueError, match="needs another candidate"):
        text_finding(PAIRS, LIKE_TEACHER, {}, {})


def test_overlap_is_symmetric_and_one_for_the_same_text():
    assert overlap("a b c", "a b c") == 1
    assert overlap("a b c", "b c d") == overlap("b c d", "a b c")
    assert overlap("", "") == 0
