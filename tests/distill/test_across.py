"""Held-out measurements across tokenizers, against sums made by hand."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from limbeck.chat import Message
from limbeck.distill.across import Across, measure_across
from limbeck.distill.align import END, WHOLE, Pair
from limbeck.distill.corpus import Record
from limbeck.distill.labels import Labels, share_labels
from limbeck.distill.pairs import Side, chat_pair, turn_ends
from limbeck.distill.spelling import spelling_of
from limbeck.errors import CorpusError, StudentError, TeacherError
from limbeck.model import LocalModel
from limbeck.progress import Silent

ANSWERS = ("The river runs past the mill.", "Say hello, 👩‍🚀, to the baker.", "Dear Anna, sorry.")


def paired(student: Any, teacher: Any) -> tuple[list[Pair], Labels]:
    spellings = [spelling_of(t, len(t), name="either") for t in (student, teacher)]
    labels = share_labels(
        spellings[1],
        spellings[0],
        teacher_ends=turn_ends(teacher),
        student_ends=turn_ends(student),
    )
    pairs: list[Pair] = []
    for n, answer in enumerate(ANSWERS):
        chat = (Message("user", f"Question {n}?"), Message("assistant", answer))
        record = Record(chat, str(n), heldout=True, where="x")
        sides = Side(student, spellings[0]), Side(teacher, spellings[1])
        pair = chat_pair(record, *sides, max_length=300)
        assert isinstance(pair, Pair)
        pairs.append(pair)
    return pairs, labels


@pytest.fixture(scope="module")
def student(piece_tokenizer: Any) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=len(piece_tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return transformers.LlamaForCausalLM(config).eval()


def measure(teacher: Any, students: dict[str, Any], pairs: list[Pair], labels: Labels) -> Across:
    return measure_across(
        teacher, students, pairs, labels, precision="no", batch_tokens=200, progress=Silent()
    )


def nats(model: Any, tokens_T: np.ndarray, numbers: np.ndarray) -> float:
    with torch.no_grad():
        log_TV = model(torch.from_numpy(tokens_T).long()[None]).logits[0].double().log_softmax(-1)
    return -float(sum(log_TV[n - 1, int(tokens_T[n])] for n in numbers.tolist()))


def test_bits_are_the_code_length_of_answers_and_ends_over_their_bytes(
    tiny_teacher: LocalModel, student: Any, tiny_tokenizer: Any, piece_tokenizer: Any
) -> None:
    pairs, labels = paired(piece_tokenizer, tiny_tokenizer)
    found = measure(tiny_teacher.model, {"student": student}, pairs, labels)
    size = sum(len(a.encode()) for a in ANSWERS)
    assert found.content_bytes == size
    theirs = ours = 0.0
    for pair in pairs:
        (passage,) = pair.passages
        spans = passage.teacher
        assert spans.end is not None
        numbers = np.array([*range(spans.first, spans.stop), spans.end])
        theirs += nats(tiny_teacher.model, pair.teacher_T, numbers)
        ours += nats(student, pair.student.tokens_T, np.flatnonzero(pair.student.loss_T) + 1)
    assert found.teacher_bits.value == pytest.approx(theirs / math.log(2) / size, rel=1e-4)
    bits = found.arms["student"].bits_per_byte.value
    assert bits == pytest.approx(ours / math.log(2) / size, rel=1e-4)


def test_a_teacher_measured_against_itself_keeps_everything(
    tiny_teacher: LocalModel, tiny_tokenizer: Any
) -> None:
    pairs, labels = paired(tiny_tokenizer, tiny_tokenizer)
    same = copy.deepcopy(tiny_teacher.model)
    found = measure(tiny_teacher.model, {"student": same}, pairs, labels)
    arm = found.arms["student"]
    assert arm.label_kl.value == pytest.approx(0, abs=1e-5)
    assert arm.label_agreement.value == 1
    assert arm.bits_per_byte.value == pytest.approx(found.teacher_bits.value)
    assert found.coincident == found.positions
    assert found.differences == {}


def test_label_divergence_and_agreement_are_over_positions_that_coincide(
    tiny_teacher: LocalModel, student: Any, tiny_tokenizer: Any, piece_tokenizer: Any
) -> None:
    pairs, labels = paired(piece_tokenizer, tiny_tokenizer)
    found = measure(tiny_teacher.model, {"student": student}, pairs, labels)
    kinds = np.concatenate([pair.rows().kind_R for pair in pairs])
    both = (kinds == WHOLE) | (kinds == END)
    assert found.coincident == both.sum() < found.positions == len(kinds)
    arm = found.arms["student"]
    assert arm.label_kl.value > 0
    assert 0 <= arm.label_agreement.value < 1


def test_an_arm_that_knows_the_text_differs_from_one_that_does_not(
    tiny_teacher: LocalModel, student: Any, tiny_tokenizer: Any, piece_tokenizer: Any
) -> None:
    pairs, labels = paired(piece_tokenizer, tiny_tokenizer)
    worse = copy.deepcopy(student)
    with torch.no_grad():
        worse.lm_head.weight.mul_(4)
    found = measure(tiny_teacher.model, {"student": student, "undistilled": worse}, pairs, labels)
    difference = found.differences["undistilled"]
    gap = found.arms["student"].bits_per_byte.value - found.arms["undistilled"].bits_per_byte.value
    assert difference.bits_per_byte.value == pytest.approx(gap)
    assert difference.label_kl.value < 0
    values = found.as_dict()
    assert values["differences"]["undistilled"]["kl_mean"] is None  # pyright: ignore[reportIndexIssue, reportUnknownVariableType]


def test_nothing_to_measure_and_broken_weights_are_one_sentence(
    tiny_teacher: LocalModel, student: Any, tiny_tokenizer: Any, piece_tokenizer: Any
) -> None:
    pairs, labels = paired(piece_tokenizer, tiny_tokenizer)
    with pytest.raises(CorpusError, match="no aligned document"):
        measure(tiny_teacher.model, {"student": student}, [], labels)
    with pytest.raises(StudentError, match="no student to measure"):
        measure(tiny_teacher.model, {}, pairs, labels)
    broken = copy.deepcopy(student)
    with torch.no_grad():
        broken.lm_head.weight.fill_(torch.nan)
    with pytest.raises(StudentError, match="student student gives logits that are not finite"):
        measure(tiny_teacher.model, {"student": broken}, pairs, labels)
    mute = copy.deepcopy(tiny_teacher.model)
    with torch.no_grad():
        mute.lm_head.weight.fill_(torch.nan)
    with pytest.raises(TeacherError, match="the teacher gives logits"):
        measure(mute, {"student": student}, pairs, labels)
