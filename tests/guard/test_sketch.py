import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.sketch import LONGEST_WORDS, WINDOW, Sketcher, bottom, fingerprints, words_of
from tinytraffic import dice

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=5), min_size=1, max_size=60)


def test_case_and_punctuation_do_not_count() -> None:
    assert words_of("Copper, KETTLES shine!") == words_of("copper kettles -- shine")


def test_writing_without_spaces_counts_by_the_sign() -> None:
    assert words_of("蒸馏器 is old") == ["蒸", "馏", "器", "is", "old"]


@settings(deadline=None)  # the machine may be busy
@given(WORDS)
def test_another_secret_makes_other_hashes(words: list[str]) -> None:
    one, other = Sketcher(b"one"), Sketcher(b"other")
    assert one.fingerprint != other.fingerprint
    assert not set(one.shingles(words).tolist()) & set(other.shingles(words).tolist())


def test_texts_crafted_to_collide_under_one_secret_do_not_under_another() -> None:
    mine, theirs = Sketcher(b"an adversary's guess"), Sketcher(b"the operator's")
    by_slot: dict[int, list[str]] = {}
    for n in range(40_000):
        by_slot.setdefault(mine[f"word{n}"] % 8192, []).append(f"word{n}")
    crafted = max(by_slot.values(), key=len)
    assert len(crafted) >= 12
    assert len({mine[word] % 8192 for word in crafted}) == 1
    assert len({theirs[word] % 8192 for word in crafted}) >= len(crafted) - 1


@settings(deadline=None)  # the machine may be busy
@given(WORDS, st.integers(1, 20))
def test_a_sample_is_sorted_without_repeats_and_of_the_set_alone(words: list[str], k: int) -> None:
    sketcher = Sketcher(b"k")
    shingles = sketcher.shingles(words)
    sample = bottom(shingles, k)
    assert sample == sorted(set(shingles.tolist()))[: len(sample)]
    assert len(sample) <= k
    assert sample == bottom(np.concatenate([shingles, shingles]), k) or len(shingles) > 4 * k


def test_a_text_inside_another_leaves_its_fingerprints() -> None:
    rng = dice(0)
    item = [f"w{rng.randrange(10**6)}" for _ in range(40)]
    around = [f"v{rng.randrange(10**6)}" for _ in range(30)]
    sketcher = Sketcher(b"k")
    inside = set(fingerprints(sketcher.shingles([*around, *item, *around])).tolist())
    marks = set(fingerprints(sketcher.shingles(item)).tolist())
    assert marks <= inside


def test_ten_words_in_common_share_a_fingerprint() -> None:
    sketcher = Sketcher(b"k")
    common = [f"c{n}" for n in range(WINDOW + 2)]
    for seed in range(20):
        one = [f"{seed}a{n}" for n in range(9)] + common + [f"{seed}b{n}" for n in range(5)]
        other = common + [f"{seed}d{n}" for n in range(30)]
        shared = set(fingerprints(sketcher.shingles(one)).tolist()) & set(
            fingerprints(sketcher.shingles(other)).tolist()
        )
        assert shared


@pytest.mark.parametrize("count", [1, 2, 3, 100, 100_000])
def test_long_texts_are_sketched_in_bounded_work(count: int) -> None:
    shingles = Sketcher(b"k").shingles([f"w{n}" for n in range(count)])
    assert 1 <= len(shingles) <= LONGEST_WORDS


def test_the_memory_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.guard.sketch.REMEMBERED_WORDS", 100)
    sketcher = Sketcher(b"k")
    first = sketcher["w0"]
    for n in range(1000):
        assert sketcher[f"w{n}"] == sketcher.hash(f"w{n}")
        assert len(sketcher) <= 100
    assert sketcher["w0"] == first
