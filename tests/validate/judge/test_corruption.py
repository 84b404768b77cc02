import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.validate.judge.corruption import LADDER, PADDED_WORDS, Damage, damage, pad

ANSWER = "The kettle is made of copper, and it holds 12 litres of water."


def _damaged(kind: Damage, text: str, gold: str = "12", seed: int = 0) -> str | None:
    return damage(
        kind,
        text,
        elsewhere="A river runs past the mill.",
        wrong=lambda t: gold not in t.split(),
        rng=np.random.default_rng(seed),
    )


def _anything(kind: Damage, text: str) -> str | None:
    """Return damage where everything that differs is wrong."""
    rng = np.random.default_rng(1)
    return damage(kind, text, elsewhere="Elsewhere.", wrong=lambda _: True, rng=rng)


@pytest.mark.parametrize("kind", LADDER)
def test_a_damaged_answer_is_wrong_and_not_the_answer(kind: Damage) -> None:
    damaged = _damaged(kind, ANSWER)
    assert damaged is not None
    assert damaged != ANSWER
    assert "12" not in damaged.split()


@settings(deadline=None)  # the machine may be busy
@given(
    kind=st.sampled_from(LADDER),
    text=st.text(min_size=1, max_size=50),
    seed=st.integers(0, 99),
)
def test_damage_never_returns_what_is_still_right(kind: Damage, text: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    right = {text.strip(), text.strip()[:3]}
    damaged = damage(kind, text, elsewhere="else", wrong=lambda t: t not in right, rng=rng)
    assert damaged is None or (damaged.strip() and damaged not in right)


@pytest.mark.parametrize("kind", LADDER)
def test_what_cannot_be_made_wrong_is_not_used(kind: Damage) -> None:
    rng = np.random.default_rng(0)
    assert damage(kind, ANSWER, elsewhere="else", wrong=lambda _: False, rng=rng) is None


def test_without_an_answer_to_another_question_there_is_no_off_topic_one() -> None:
    rng = np.random.default_rng(0)
    assert damage("off-topic", ANSWER, elsewhere=None, wrong=lambda _: True, rng=rng) is None


def test_each_kind_does_what_it_is_named_for() -> None:
    truncated = _anything("truncate", ANSWER)
    assert truncated is not None
    assert ANSWER.startswith(truncated)
    shuffled = _anything("shuffle", ANSWER)
    assert shuffled is not None
    assert sorted(shuffled.split()) == sorted(ANSWER.split())
    assert _anything("negate", "It is hot.") == "It is not hot."
    assert _anything("negate", "Yes, always") == "No, never"
    assert _anything("off-topic", ANSWER) == "Elsewhere."


def test_a_number_that_no_negation_reaches_is_changed() -> None:
    assert _damaged("negate", "12") == "13"


@settings(deadline=None)  # the machine may be busy
@given(text=st.text(min_size=1, max_size=300), seed=st.integers(0, 9))
def test_padding_adds_words_and_takes_none_away(text: str, seed: int) -> None:
    padded = pad(text, np.random.default_rng(seed))
    assert padded.startswith(text.rstrip())
    assert len(padded.split()) >= max(PADDED_WORDS, 3 * len(text.split()))
