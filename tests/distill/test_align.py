from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.distill.align import (
    BEGUN,
    END,
    INSIDE,
    WHOLE,
    Pair,
    Passage,
    Spans,
    common_edges,
    loss_of,
    read_passage,
    rows_of,
    spans_of,
)
from limbeck.distill.spelling import Spelling, spelling_of
from limbeck.distill.targets import Document

LENGTHS = st.lists(st.integers(1, 5), min_size=1, max_size=12)


def spans(lengths: list[int], total: int, *, first: int = 3, end: bool = False) -> Spans:
    """Tokens of these lengths, the last one cut to the passage's end."""
    edges = np.concatenate([[0], np.cumsum(lengths)])
    inner = edges[edges < total].tolist()
    return Spans(first, np.array([*inner, total]), first + len(inner) if end else None)


@st.composite
def passages(draw: st.DrawFn) -> Passage:
    ours, theirs = draw(LENGTHS), draw(LENGTHS)
    total = min(sum(ours), sum(theirs))
    content = bytes(draw(st.binary(min_size=total, max_size=total)))
    end = draw(st.booleans())
    return Passage(content, spans(ours, total, end=end), spans(theirs, total, first=5, end=end))


@settings(deadline=None)
@given(passage=passages())
def test_each_row_begins_within_its_teachers_token(passage: Passage) -> None:
    rows = rows_of(passage)
    ours, theirs = passage.student, passage.teacher
    for n in range(len(rows)):
        if rows.kind_R[n] == END:
            continue
        start = int(ours.edges_M1[rows.student_R[n] - ours.first])
        place = int(rows.teacher_R[n] - theirs.first)
        assert theirs.edges_M1[place] + rows.skip_R[n] == start
        assert start < theirs.edges_M1[place + 1]


@settings(deadline=None)
@given(passage=passages())
def test_spans_coincide_exactly_at_the_common_edges(passage: Passage) -> None:
    rows = rows_of(passage)
    whole = rows.student_R[rows.kind_R == WHOLE] - passage.student.first
    common = common_edges(passage.student, passage.teacher, len(passage.content))
    assert passage.student.edges_M1[whole].tolist() == common[:-1].tolist()
    assert common[0] == 0
    assert common[-1] == len(passage.content)


@settings(deadline=None)
@given(passage=passages())
def test_rows_cover_the_passage_once_and_in_order(passage: Passage) -> None:
    rows = rows_of(passage)
    assert rows.size_R.sum() == len(passage.content)
    assert (np.diff(rows.student_R) == 1).all()
    assert (np.diff(rows.teacher_R) >= 0).all()
    assert set(rows.kind_R.tolist()) <= {WHOLE, INSIDE, END}


@settings(deadline=None)
@given(passage=passages())
def test_with_the_same_tokens_every_row_coincides(passage: Passage) -> None:
    same = Passage(passage.content, passage.student, passage.student)
    assert INSIDE not in rows_of(same).kind_R


def test_tokens_that_reach_into_the_template_only_begin() -> None:
    ours = Spans(4, np.array([-1, 3, 6, 7]), 8)
    theirs = Spans(2, np.array([0, 3, 6]), 4)
    rows = rows_of(Passage(b"answer", ours, theirs))
    assert rows.kind_R.tolist() == [BEGUN, WHOLE, BEGUN, END]
    assert rows.size_R.tolist() == [3, 3, 0, 0]


def test_the_first_token_of_a_document_is_no_row() -> None:
    for ours, theirs in ((0, 1), (1, 0)):
        passage = Passage(b"abc", spans([1, 2], 3, first=ours), spans([3], 3, first=theirs))
        rows = rows_of(passage)
        assert rows.student_R.tolist() == ([1] if ours == 0 and theirs else [])
    assert loss_of(rows_of(Passage(b"abc", spans([1, 2], 3), spans([3], 3))), 6).tolist() == [
        *(False, False, True, True, False, False),
    ]


TEXT = st.text(
    st.sampled_from("the river mill é\u0301👩🏽\u200d🚀ü\n "), min_size=1, max_size=30
).filter(str.strip)


@settings(deadline=None)
@given(text=TEXT, before=st.sampled_from(["", "[INST] hi [/INST] ", "the "]))
def test_two_real_tokenizers_align_on_every_text(
    tiny_tokenizer: Any, piece_tokenizer: Any, text: str, before: str
) -> None:
    content = text.encode()
    sides: list[tuple[Spelling, Any, Spans]] = []
    for tokenizer in (tiny_tokenizer, piece_tokenizer):
        spelling = spelling_of(tokenizer, len(tokenizer), name="either")
        ids = np.array(tokenizer(before + text)["input_ids"])
        start = 1 if ids[0] == tokenizer.bos_token_id else 0
        found = spans_of(spelling, ids, content, start, len(ids))
        assert found is not None
        written = b"".join(spelling.spell(ids[found.first : found.first + len(found.inner)]))
        assert written[-int(found.edges_M1[0]) :][: len(content)] == content
        sides.append((spelling, ids, found))
    (ours, student_T, student), (theirs, teacher_T, teacher) = sides
    passage = Passage(content, student, teacher)
    loss_T = np.zeros(len(student_T), np.bool_)
    pair = Pair(Document(student_T, loss_T, False, "key"), teacher_T, (passage,))
    rows = pair.rows()
    assert rows.size_R.sum() <= len(content)
    again = read_passage(passage.as_json(), student_T, teacher_T, (ours, theirs))
    assert again.content == content
    for side in ("student", "teacher"):
        here, there = getattr(passage, side), getattr(again, side)
        assert here.first == there.first
        assert here.edges_M1.tolist() == there.edges_M1.tolist()


def test_what_tokens_do_not_spell_is_not_found(piece_tokenizer: Any) -> None:
    spelling = spelling_of(piece_tokenizer, len(piece_tokenizer), name="pieces")
    ids = np.array(piece_tokenizer("the river")["input_ids"])
    assert spans_of(spelling, ids, b"the mill", 0, len(ids)) is None
    special = np.array(piece_tokenizer("the </s> river")["input_ids"])
    assert spans_of(spelling, special, b"the </s> river", 0, len(special)) is None
