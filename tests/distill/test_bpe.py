"""A trimmed tokenizer: the same tokens where it has them, and the same text in any case."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from limbeck.distill.bpe import Bpe, last_merge, read_bpe, trimmed_tokenizer
from limbeck.errors import StudentError
from limbeck.pretrained import tokenizer_sha256

LAST = "<|last|>"
WORDS = st.sampled_from(
    ["The river", " mill", "Köln", " Anna", "12", "heat", "\n\n", " bread", "é"]
)
TEXTS = st.one_of(st.text(), st.lists(WORDS).map("".join))


@pytest.fixture(scope="module")
def bpe(tiny_tokenizer: Any) -> Bpe:
    return read_bpe(tiny_tokenizer)


def encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


def strings(tokenizer: Any, ids: list[int]) -> list[str]:
    return [tokenizer.backend_tokenizer.id_to_token(i) for i in ids]


def trimmed(tokenizer: Any, bpe: Bpe, keep: set[int]) -> Any:
    return trimmed_tokenizer(tokenizer, bpe, bpe.closure(keep | bpe.required()))


@settings(deadline=None, max_examples=150)
@given(text=TEXTS, keep=st.sets(st.integers(0, 399)))
def test_any_text_comes_back_from_any_trim(
    text: str, keep: set[int], tiny_tokenizer: Any, bpe: Bpe
) -> None:
    small = trimmed(tiny_tokenizer, bpe, keep)
    decode = small.backend_tokenizer.decode
    whole = tiny_tokenizer.backend_tokenizer
    assert decode(encode(small, text)) == whole.decode(encode(tiny_tokenizer, text)) == text


@settings(deadline=None, max_examples=150)
@given(text=TEXTS, others=st.sets(st.integers(0, 399)))
def test_text_whose_tokens_are_kept_falls_into_the_same_tokens(
    text: str, others: set[int], tiny_tokenizer: Any, bpe: Bpe
) -> None:
    ids = encode(tiny_tokenizer, text)
    small = trimmed(tiny_tokenizer, bpe, set(ids) | others)
    assert strings(small, encode(small, text)) == strings(tiny_tokenizer, ids)


@settings(deadline=None, max_examples=60)
@given(keep=st.sets(st.integers(0, 399)))
def test_the_spelling_of_a_token_is_its_text_in_kept_tokens(
    keep: set[int], tiny_tokenizer: Any, bpe: Bpe
) -> None:
    kept = sorted(bpe.closure(keep | bpe.required()))
    small, spelling = trimmed_tokenizer(tiny_tokenizer, bpe, kept), bpe.spelling(kept)
    assert spelling.keys() == set(range(400)) - set(kept)
    for token, pieces in spelling.items():
        text = bpe.tokens[token]
        assert [i.id for i in small.backend_tokenizer.model.tokenize(text)] == list(pieces)
        assert len(pieces) > 1


def test_a_token_that_nothing_shorter_spells_is_required() -> None:
    whole = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "a☃": 3}, [("a", "b")]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert read_bpe(PreTrainedTokenizerFast(tokenizer_object=whole)).required() == {0, 1, 3}


def test_without_a_tokens_ancestors_it_could_not_be_made(tiny_tokenizer: Any, bpe: Bpe) -> None:
    longest = max(bpe.ranks, key=lambda pair: len("".join(pair)))
    token = bpe.ids["".join(longest)]
    small = trimmed_tokenizer(tiny_tokenizer, bpe, bpe.required() | {token})
    text = tiny_tokenizer.backend_tokenizer.decode([token])
    assert len(encode(tiny_tokenizer, text)) == 1 < len(encode(small, text))


def test_ids_ascend_with_the_teachers_and_special_tokens_keep_their_part(
    tiny_tokenizer: Any, bpe: Bpe
) -> None:
    kept = sorted(bpe.closure({350, 399} | bpe.required()))
    small = trimmed_tokenizer(tiny_tokenizer, bpe, kept)
    assert strings(small, list(range(len(small)))) == strings(tiny_tokenizer, kept)
    assert len(small) == len(kept)
    for name in ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template"):
        assert getattr(small, name) == getattr(tiny_tokenizer, name)
    said = [{"role": "user", "content": "the river"}]
    before = tiny_tokenizer.apply_chat_template(said, tokenize=False)
    assert small.apply_chat_template(said, tokenize=False) == before
    assert small.decode(small(before)["input_ids"]) == before


def test_a_trimmed_tokenizer_is_the_same_after_it_was_saved(
    tiny_tokenizer: Any, bpe: Bpe, tmp_path: Path
) -> None:
    small = trimmed(tiny_tokenizer, bpe, {300})
    small.save_pretrained(tmp_path)
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer_sha256(loaded) == tokenizer_sha256(small) != tokenizer_sha256(tiny_tokenizer)


def test_the_last_merge_is_the_one_that_bpe_makes_not_any_that_fits() -> None:
    ranks = {("a", "b"): 0, ("b", "c"): 1, ("a", "bc"): 2, ("ab", "c"): 3}
    assert last_merge("abc", ranks) == ("ab", "c")
    assert last_merge("bc", ranks) == ("b", "c")
    assert last_merge("a", ranks) is None
    assert last_merge("abd", ranks) is None


def test_what_writes_special_tokens_around_a_text_follows_the_new_ids(tiny_tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    around = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    last = len(tiny_tokenizer)
    around.add_special_tokens([LAST])
    around.post_processor = TemplateProcessing(single=f"$A {LAST}", special_tokens=[(LAST, last)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=around, eos_token=LAST)
    bpe = read_bpe(wrapped)
    small = trimmed_tokenizer(wrapped, bpe, bpe.closure(bpe.required()))
    assert small("river")["input_ids"][-1] == len(small) - 1 == small.eos_token_id


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (models.WordLevel({"a": 0, LAST: 1}, unk_token=LAST), "WordLevel"),
        (models.BPE({"a": 0, "b": 1}, []), "BPE over Whitespace"),
    ],
)
def test_a_tokenizer_that_cannot_spell_every_text_is_refused(model: Any, words: str) -> None:
    other = Tokenizer(model)
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(StudentError, match=words):
        read_bpe(PreTrainedTokenizerFast(tokenizer_object=other))


def test_merges_with_dropout_are_refused(tiny_tokenizer: Any) -> None:
    other = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    other.model.dropout = 0.1
    with pytest.raises(StudentError, match=r"dropout = 0\.1"):
        read_bpe(PreTrainedTokenizerFast(tokenizer_object=other))
