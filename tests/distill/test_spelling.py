from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.distill.spelling import read_spelling
from limbeck.errors import TokenizerMismatchError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def pieces() -> Any:
    """Return a SentencePiece-like tokenizer with byte fallback, as Llama 2 and Gemma have."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))  # noqa: S106 (a token)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    lone = [AddedToken(f"<0x{b:02X}>", normalized=False) for b in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<unk>", "</s>", *lone],
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz\u2581"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the mill and the river and the mill"] * 3, trainer)
    # Bytes are vocabulary, not added tokens, in such tokenizers.
    import json

    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if "<0x" not in t["content"]]
    made = Tokenizer.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="</s>")  # noqa: S106 (a token)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=TEXTS)
def test_the_bytes_of_a_texts_tokens_are_the_texts_bytes(tiny_tokenizer: Any, text: str) -> None:
    vocabulary = read_spelling(tiny_tokenizer)
    ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(vocabulary.bytes_of[i] for i in ids) == text.encode()


PIECES = pieces()


@settings(deadline=None)
@given(text=TEXTS)
def test_so_they_are_with_byte_fallback(text: str) -> None:
    vocabulary = read_spelling(PIECES)
    ids = PIECES(text, add_special_tokens=False)["input_ids"]
    spelt = b"".join(vocabulary.bytes_of[i] for i in ids)
    assert spelt == text.encode() or "\u2581" in text or "<" in text


def test_every_token_is_found_by_its_bytes_and_plain_ones_go_first(tiny_tokenizer: Any) -> None:
    vocabulary = read_spelling(tiny_tokenizer)
    assert len(vocabulary.bytes_of) == len(tiny_tokenizer)
    for number, data in vocabulary.bytes_of.items():
        found = vocabulary.id_of[data]
        assert vocabulary.bytes_of[found] == data
        assert found == number or found not in vocabulary.special


def test_special_tokens_are_spelt_as_they_are(tiny_tokenizer: Any) -> None:
    vocabulary = read_spelling(tiny_tokenizer)
    end = tiny_tokenizer.eos_token_id
    assert vocabulary.bytes_of[end] == b"<|im_end|>"
    assert vocabulary.id_of[b"<|im_end|>"] == end
    assert end in vocabulary.special


def test_a_vocabulary_without_bytes_is_refused() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordPiece({"[UNK]": 0, "mill": 1, "##er": 2}, unk_token="[UNK]"))  # noqa: S106 (a token)
    words.decoder = decoders.WordPiece()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")  # noqa: S106 (a token)
    with pytest.raises(TokenizerMismatchError, match="decoder is WordPiece"):
        read_spelling(tokenizer)
