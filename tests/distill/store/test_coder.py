"""Integer intervals go through the stack and come back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.distill.store.coder import Decoder, Encoder, pieces
from limbeck.distill.store.tables import Followers, Frequencies, Table, uniform
from limbeck.errors import StoreError


@given(length=st.integers(0, 20_000))
def test_pieces_cover_a_batch_in_order_and_end_small(length: int) -> None:
    cut = pieces(length)
    covered = np.concatenate([np.arange(p.start, p.stop) for p in cut]) if cut else np.zeros(0)
    np.testing.assert_array_equal(covered, np.arange(length))
    if length:
        assert cut[-1].stop - cut[-1].start == min(16, length)


@given(seed=st.integers(0, 2**31), length=st.integers(1, 400))
def test_every_model_gives_back_what_it_was_given(seed: int, length: int) -> None:
    random = np.random.default_rng(seed)
    context = random.integers(0, 5, length)
    symbols = np.minimum(random.poisson(2 + context), 19)
    sizes = random.integers(1, 900, length)
    numbers = (random.random(length) * sizes).astype(np.int64)
    ids = random.integers(0, 300, length)

    def run(coder: Encoder | Decoder, *, encoding: bool) -> list[np.ndarray]:
        table, ordered = Table(5, 20), Table(5, 20, kernel=(8, 4))
        frequencies, followers = Frequencies(300), Followers(300)
        followers.learn(context * 300 + ids, np.ones(length, dtype=np.int64))
        strata = Table(5, 8)
        found: list[np.ndarray] = []
        for _ in range(2):
            found += [
                table.code(coder, "a", context, symbols if encoding else None),
                ordered.code(coder, "a", context, symbols if encoding else None),
                uniform(coder, "b", sizes, numbers if encoding else None),
                frequencies.code(coder, "c", ids if encoding else None, strata, context),
                followers.code(coder, "d", context, ids if encoding else None),
            ]
            frequencies.learn(ids, 3)
        return found

    encoder = Encoder()
    put = run(encoder, encoding=True)
    words = encoder.finish()
    decoder = Decoder(words)
    got = run(decoder, encoding=False)
    decoder.finish()
    for before, after in zip(put, got, strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_size_is_that_of_the_ideal_bits_but_for_a_start() -> None:
    random = np.random.default_rng(0)
    symbols = random.binomial(19, 0.3, 20_000)
    encoder = Encoder()
    Table(1, 20).code(encoder, "x", np.zeros(20_000, dtype=np.int64), symbols)
    assert encoder.bits["x"] < 32 * len(encoder.finish()) < encoder.bits["x"] * 1.01 + 600


def test_a_table_learns_what_is_common() -> None:
    context, symbols = np.zeros(500, dtype=np.int64), np.full(500, 3)
    table = Table(1, 20)
    first, second = Encoder(), Encoder()
    table.code(first, "x", context, symbols)
    table.code(second, "x", context, symbols)
    assert second.bits["x"] < first.bits["x"] / 100


def test_words_left_over_are_an_error() -> None:
    with pytest.raises(StoreError, match="does not end"):
        Decoder(np.arange(1, 9, dtype=np.uint32)).finish()
