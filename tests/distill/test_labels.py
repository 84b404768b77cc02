from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.distill.labels import Labels, read_labels, share_labels
from limbeck.distill.spelling import Spelling, spelling_of
from limbeck.errors import RunError

PIECES = st.lists(
    st.text("ab\u00ff", min_size=1, max_size=3).map(lambda t: t.encode("latin1")), max_size=12
)


def labels_of(teacher: list[bytes], student: list[bytes], ends: tuple[int, int] = (0, 0)) -> Labels:
    """Two vocabularies whose first token is special and whose last row is padding."""
    sides = [Spelling((None, *side, None), {0: b"<end>"}) for side in (teacher, student)]
    return share_labels(*sides, teacher_ends=[ends[0]], student_ends=[ends[1]])


@pytest.fixture(scope="module")
def real(tiny_tokenizer: Any, piece_tokenizer: Any) -> Labels:
    teacher = spelling_of(tiny_tokenizer, len(tiny_tokenizer), name="tiny")
    student = spelling_of(piece_tokenizer, len(piece_tokenizer) + 5, name="pieces")
    return share_labels(teacher, student, teacher_ends=[2], student_ends=[2])


@settings(deadline=None)
@given(teacher=PIECES, student=PIECES)
def test_a_token_counts_for_the_longest_shared_string_it_begins_with(
    teacher: list[bytes], student: list[bytes]
) -> None:
    labels = labels_of(teacher, student)
    shared = set(teacher) & set(student)
    for pieces, label_V in ((teacher, labels.teacher_V), (student, labels.student.label_V)):
        for number, piece in enumerate(pieces, start=1):
            begins = [s for s in shared if piece.startswith(s)]
            if begins:
                assert student[label_V[number] - 1] == max(begins, key=len)
            else:
                assert label_V[number] == labels.student.other


@settings(deadline=None)
@given(teacher=PIECES, student=PIECES)
def test_every_id_belongs_to_one_label(teacher: list[bytes], student: list[bytes]) -> None:
    ours = labels_of(teacher, student).student
    ids, offsets = ours.members
    assert sorted(ids.tolist()) == list(range(len(student) + 2))
    for label in range(ours.size):
        assert (ours.label_V[ids[offsets[label] : offsets[label + 1]]] == label).all()


@settings(deadline=None)
@given(teacher=PIECES, student=PIECES)
def test_a_stretch_of_the_order_holds_what_begins_alike(
    teacher: list[bytes], student: list[bytes]
) -> None:
    ours = labels_of(teacher, student).student
    for number, piece in enumerate(student, start=1):
        held = ours.order_V[ours.first_V[number] : ours.stop_V[number]].tolist()
        assert sorted(held) == [n for n, p in enumerate(student, 1) if p.startswith(piece)]
        assert ours.rank_V[ours.order_V].tolist() == list(range(len(ours.order_V)))


@settings(deadline=None)
@given(teacher=PIECES, student=PIECES, beginning=st.text("ab\u00ff", max_size=2))
def test_tokens_are_found_by_their_beginning(
    teacher: list[bytes], student: list[bytes], beginning: str
) -> None:
    labels, content = labels_of(teacher, student), beginning.encode("latin1")
    ids, found = labels.teacher_tokens(content, skip=1, said=b"a")
    expected = {n for n, p in enumerate(teacher, 1) if p.startswith(content) and len(p) > 1}
    assert set(ids.tolist()) == expected
    assert found.tolist() == [labels.of(b"a" + teacher[n - 1][1:]) for n in ids.tolist()]


@settings(deadline=None)
@given(teacher=PIECES, student=PIECES)
def test_a_token_splits_its_label_exactly_if_it_is_none(
    teacher: list[bytes], student: list[bytes]
) -> None:
    ours = labels_of(teacher, student).student
    split = ours.is_split(np.arange(len(student) + 2))
    assert split.tolist() == [False, *(piece not in teacher for piece in student), False]


def test_the_ends_of_a_turn_are_one_label(real: Labels) -> None:
    assert real.teacher_V[2] == real.student.label_V[2] == 2
    assert not real.student.is_split(2)
    assert real.teacher_V[0] == real.student.other


def test_the_same_vocabulary_shares_everything() -> None:
    pieces = [bytes([n]) for n in range(256)] + [b"in", b"ing"]
    labels = labels_of(pieces, pieces)
    numbers = np.arange(1, len(pieces) + 1)
    assert labels.teacher_V[1:-1].tolist() == numbers.tolist()
    assert labels.student.label_V[1:-1].tolist() == numbers.tolist()
    assert not labels.student.is_split(numbers).any()


def test_two_real_vocabularies_share_all_bytes(real: Labels) -> None:
    shared = set(real.by_bytes)
    assert all(bytes([n]) in shared for n in range(256))
    assert b" the" in shared
    assert 256 < len(shared) < len(real.student.label_V) - 20


def test_labels_come_back_from_disk(real: Labels, tmp_path: Path) -> None:
    path = tmp_path / "labels.safetensors"
    real.student.save(path)
    again = read_labels(path)
    np.testing.assert_array_equal(again.label_V, real.student.label_V)
    np.testing.assert_array_equal(again.members[0], real.student.members[0])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(RunError, match="missing or damaged"):
        read_labels(path)
