import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.features import KEPT, NAMES, OF_WHOLE, SENSE, ask
from limbeck.guard.memory import PACKED_BYTES, Memory
from limbeck.guard.sketch import Sketcher
from tinytraffic import dice, observation, words

KEY = Sketcher(b"test")


def after(texts: list[str], gap: float = 60.0) -> Memory:
    memory = Memory()
    for n, text in enumerate(texts):
        memory.step(ask(observation("a", gap * n, text), KEY, ()), gap * n)
    return memory


@given(st.lists(st.text(max_size=60), max_size=12), st.floats(0, 1e6))
@settings(deadline=None)
def test_it_packs_to_a_fixed_size_below_4_kib_and_back(texts: list[str], gap: float) -> None:
    memory = after(texts, gap)
    packed = memory.pack()
    assert len(packed) == PACKED_BYTES <= 4096
    again = Memory.unpack(packed)
    assert again.pack() == packed
    assert np.array_equal(again.features(), memory.features())


@given(st.lists(st.text(max_size=60), min_size=1, max_size=12))
@settings(deadline=None)
def test_features_follow_their_names_and_stay_small(texts: list[str]) -> None:
    feature_F = after(texts).features()
    assert feature_F.shape == (len(NAMES),) == (len(SENSE),)
    assert ((feature_F >= 0) & (feature_F <= 2)).all()
    assert KEPT + len(OF_WHOLE) < len(NAMES)


def test_its_size_does_not_grow_with_its_history() -> None:
    rng = dice(0)
    memory = Memory()
    asked = [ask(observation("a", 0.0, " ".join(words(rng, 12))), KEY, ()) for _ in range(200)]
    for n in range(20_000):
        memory.step(asked[n % 200], float(n))
        if n in {10, 1000, 19_999}:
            assert len(memory.pack()) == PACKED_BYTES
    assert memory.requests == 20_000


def test_a_change_of_use_shows_within_its_window() -> None:
    rng = dice(1)
    memory = after([" ".join(words(rng, 12)) for _ in range(2000)])
    probing = ask(observation("a", 0.0, "zap", request={"logprobs": True}), KEY, ())
    at = NAMES.index("logprobs")
    for n in range(256):
        memory.step(probing, 200_000.0 + n)
    assert memory.features()[at] > 0.6


def test_items_asked_again_and_again_are_counted() -> None:
    rng = dice(2)
    items = [" ".join(words(rng, 12)) for _ in range(40)]
    assert 0.6 < after(items).asks_per_item() < 1.6
    assert 6 < after(items * 10).asks_per_item() < 16
