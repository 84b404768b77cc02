import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from limbeck.distill.mixing import Mixing, mixed, prompt_of
from limbeck.distill.targets import Document


def _document(loss: list[int], length: int) -> Document:
    loss_T = np.zeros(length, dtype=np.bool_)
    loss_T[loss] = True
    return Document(np.arange(100, 100 + length).astype(np.int32), loss_T, False, "k" * 64)


mixings = st.builds(
    Mixing,
    documents=st.integers(1, 60),
    per_step=st.integers(1, 20),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 99),
)


@given(mixing=mixings, epochs=st.integers(1, 3))
def test_an_epoch_visits_every_document_once_written_or_read(mixing: Mixing, epochs: int) -> None:
    steps = mixing.steps(epochs)
    assert steps == epochs * mixing.per_epoch
    for epoch in range(epochs):
        seen: list[int] = []
        for step in range(epoch * mixing.per_epoch + 1, (epoch + 1) * mixing.per_epoch + 1):
            one = mixed(mixing, step)
            assert 0 < len(one.own) + len(one.read) <= mixing.per_step
            seen += [*one.own, *one.read]
        assert sorted(seen) == list(range(mixing.documents))


@given(mixing=mixings, steps=st.integers(1, 40))
def test_the_share_that_is_written_is_the_fraction_at_every_moment(
    mixing: Mixing, steps: int
) -> None:
    taken = [mixed(mixing, step) for step in range(1, steps + 1)]
    written = sum(len(t.own) for t in taken)
    seen = sum(len(t.own) + len(t.read) for t in taken)
    assert written == math.floor(mixing.fraction * seen)
    if mixing.fraction in (0, 1):
        assert written == mixing.fraction * seen


def test_another_epoch_has_another_order() -> None:
    mixing = Mixing(documents=40, per_step=40, fraction=0.5, seed=1)
    assert mixed(mixing, 1) != mixed(mixing, 2)
    assert mixed(mixing, 1) == mixed(mixing, 1)


def test_a_chat_is_answered_anew_after_its_last_header() -> None:
    # Two answers: predicted at 3..5 and at 9..11, so their tokens are 4..6 and 10..12.
    chat = _document([3, 4, 5, 9, 10, 11], 13)
    assert prompt_of(chat, 32).tokens_T.tolist() == list(range(100, 110))
    one_answer = _document([6, 7], 9)
    assert prompt_of(one_answer, 2).tokens_T.tolist() == list(range(100, 107))


def test_a_text_is_gone_on_from_its_beginning() -> None:
    text = _document(list(range(19)), 20)
    assert prompt_of(text, 8).tokens_T.tolist() == list(range(100, 108))
    assert len(prompt_of(text, 32).tokens_T) == 10
    assert len(prompt_of(_document([0], 2), 32).tokens_T) == 1
