from typing import Any

import numpy as np
import pytest
import torch

from limbeck.chat import Message
from limbeck.distill.align import END, INSIDE, WHOLE, Pair
from limbeck.distill.beginning import Beginning
from limbeck.distill.capture_pairs import capture_pairs, listen_to_pairs, pair_order
from limbeck.distill.corpus import Record
from limbeck.distill.labels import Labels, share_labels
from limbeck.distill.next_bytes import Said, label_probs
from limbeck.distill.pairs import Side, chat_pair, turn_ends
from limbeck.distill.prefix import shared_length
from limbeck.distill.spelling import spelling_of
from limbeck.distill.store import StoreSpec
from limbeck.model import LocalModel

ANSWERS = (
    "The river runs past the mill.",
    "Say hello to the baker, 👩‍🚀, and count to 12.",
    "Grüße aus Köln; copper kettles shine.",
    "Dear Anna, sorry.",
)
SPEC = StoreSpec(
    head_threshold=0.004, max_head=400, levels=4096, tail_floor=0.0
)  # the tiny teacher is nearly flat


@pytest.fixture(scope="module")
def labels(tiny_tokenizer: Any, piece_tokenizer: Any) -> Labels:
    teacher = spelling_of(tiny_tokenizer, len(tiny_tokenizer), name="tiny")
    student = spelling_of(piece_tokenizer, len(piece_tokenizer), name="pieces")
    return share_labels(
        teacher,
        student,
        teacher_ends=turn_ends(tiny_tokenizer),
        student_ends=turn_ends(piece_tokenizer),
    )


@pytest.fixture(scope="module")
def pairs(tiny_tokenizer: Any, piece_tokenizer: Any, labels: Labels) -> list[Pair]:
    spelling = spelling_of(piece_tokenizer, len(piece_tokenizer), name="pieces")
    sides = Side(piece_tokenizer, spelling), Side(tiny_tokenizer, labels.teacher)
    made: list[Pair] = []
    for number, answer in enumerate(ANSWERS):
        chat = (Message("user", f"Question {number}?"), Message("assistant", answer))
        record = Record(chat, str(number), heldout=False, where="x")
        pair = chat_pair(record, *sides, max_length=300)
        assert isinstance(pair, Pair)
        made.append(pair)
    return pair_order(made)


def direct(teacher: LocalModel, pair: Pair, labels: Labels) -> torch.Tensor:
    """Label distributions from a forward over the teacher's document alone."""
    with torch.no_grad():
        logits_TV = teacher.model(torch.from_numpy(pair.teacher_T).long()[None]).logits[0]
    said = Said(logits_TV[:-1].softmax(-1), 1, pair.teacher_T)
    return label_probs(said, pair.rows(), pair, labels, pair.row_contents())


def test_a_batch_says_what_each_document_alone_would_hear(
    tiny_teacher: LocalModel, pairs: list[Pair], labels: Labels
) -> None:
    known = shared_length([p.teacher_T for p in pairs], 4)
    assert known > 0
    for beginning in (None, Beginning(tiny_teacher.model, pairs[0].teacher_T[:known])):
        heard = listen_to_pairs(tiny_teacher, pairs, labels, method="chunks", beginning=beginning)
        for pair, parts in heard:
            found = torch.cat(parts).exp()
            torch.testing.assert_close(
                found, direct(tiny_teacher, pair, labels), rtol=1e-3, atol=1e-5
            )
            torch.testing.assert_close(found.sum(1), torch.ones(len(found)))


def test_every_loss_position_of_the_student_has_a_target_over_its_labels(
    tiny_teacher: LocalModel, pairs: list[Pair], labels: Labels
) -> None:
    taught = capture_pairs(
        tiny_teacher, pairs, labels, SPEC, method="chunks", batch_tokens=150, seed=0
    )
    for pair, one in zip(pairs, taught, strict=True):
        assert one.document is pair.student
        assert len(one.targets) == pair.student.positions
        exact = direct(tiny_teacher, pair, labels).numpy()
        said = one.targets
        row_E = np.repeat(np.arange(len(said)), np.diff(said.offsets_N1))
        head = said.is_head_E
        error = np.abs(said.weights_E[head] - exact[row_E[head], said.ids_E[head]])
        assert error.max() <= 1 / SPEC.levels + 1e-5


@pytest.mark.parametrize("method", ["chunks", "uld"])
def test_capture_goes_on_as_if_it_had_not_stopped(
    tiny_teacher: LocalModel, pairs: list[Pair], labels: Labels, method: Any
) -> None:
    def capture(skip: int) -> list[Any]:
        return list(
            capture_pairs(
                tiny_teacher,
                pairs,
                labels,
                SPEC,
                method=method,
                batch_tokens=150,
                seed=3,
                skip=skip,
            )
        )

    whole = capture(0)
    for skip in (1, 3, len(pairs)):
        for one, two in zip(whole[skip:], capture(skip), strict=True):
            assert one.targets.ids_E.tolist() == two.targets.ids_E.tolist()
            assert one.targets.weights_E.tolist() == two.targets.weights_E.tolist()


def test_sorted_probabilities_are_kept_where_spans_coincide(
    tiny_teacher: LocalModel, pairs: list[Pair], labels: Labels
) -> None:
    pair = next(p for p in pairs if INSIDE in p.rows().kind_R)
    ((_, parts),) = listen_to_pairs(tiny_teacher, [pair], labels, method="uld")
    probs_RL = torch.cat(parts).exp()
    rows = pair.rows()
    with torch.no_grad():
        logits_TV = tiny_teacher.model(torch.from_numpy(pair.teacher_T).long()[None]).logits[0]
    for row in range(len(rows)):
        if rows.kind_R[row] in (WHOLE, END):
            p_V = logits_TV[rows.teacher_R[row] - 1].softmax(-1).sort(descending=True).values
            torch.testing.assert_close(probs_RL[row, : len(p_V)], p_V, rtol=1e-3, atol=1e-6)
        else:
            assert probs_RL[row, labels.student.rest] == 1
