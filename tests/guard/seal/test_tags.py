"""Marked text is hidden however it is cut."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.reasoned import leaks, marked
from limbeck.guard.seal.tags import PAIRS, Tags, Visible, visible

TAGS = Tags()
patient = settings(deadline=None)


@patient
@given(marked(), st.lists(st.integers(0, 500), max_size=20))
def test_what_is_outside_the_marks_is_seen_and_nothing_else(
    made: tuple[str, str], places: list[int]
) -> None:
    whole, shown = made
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    view = Visible(TAGS)
    said = "".join(view.feed(whole[a:b]) for a, b in itertools.pairwise(edges)) + view.finish()
    assert said == shown
    assert visible(TAGS, whole) == shown


@patient
@given(marked())
def test_one_character_at_a_time_is_no_way_out(made: tuple[str, str]) -> None:
    whole, shown = made
    view = Visible(TAGS)
    assert "".join(map(view.feed, whole)) + view.finish() == shown


@patient
@given(st.text())
def test_text_without_marks_is_untouched(text: str) -> None:
    if not any(mark.lower() in text.lower() for pair in PAIRS for mark in pair):
        assert visible(TAGS, text) == text


@pytest.mark.parametrize("pair", PAIRS)
def test_each_pair_hides_nests_and_hides_what_stays_open(pair: tuple[str, str]) -> None:
    opening, closing = pair
    assert visible(TAGS, f"a{opening}Q{closing}b") == "ab"
    assert visible(TAGS, f"a{opening}Q{opening}X{closing}Z{closing}b") == "ab"
    assert visible(TAGS, f"a{opening}Q") == "a"


def test_a_closing_mark_alone_hides_what_stands_before_it_where_the_whole_text_is_there() -> None:
    assert visible(TAGS, "QXZ</think>yes") == "yes"
    assert visible(TAGS, "Q</think>Z</think>yes") == "yes"


def test_an_answer_may_begin_inside_its_reasoning() -> None:
    view = Visible(TAGS, "<think>")
    assert "".join(map(view.feed, "QX</think>yes")) == "yes"
    assert not leaks(visible(TAGS, "QX", "<think>").encode())


def test_the_end_of_a_prompt_tells_whether_a_mark_is_open() -> None:
    assert TAGS.left_open("a <think> b") == "<think>"
    assert TAGS.left_open("a <think> b </think> c") is None
    assert TAGS.left_open("") is None
