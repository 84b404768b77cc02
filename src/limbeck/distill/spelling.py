"""Which bytes each token of a tokenizer spells, and which token spells given bytes.

Text that two tokenizers cut differently is still the same bytes, so bytes are what alignment counts in, and an API
names its tokens by them; characters will not do, for a token may hold half of one. Two families of tokenizers are understood, and with
them nearly every causal language model:

- *byte-level* (GPT-2, Llama 3, Qwen, SmolLM2): a token's string has one visible character for each byte;
- *SentencePiece* (Llama 2, Mistral, Gemma): `▁` stands for a space, and `<0x0A>` for a single byte.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from limbeck.distill.targets import Ids, Ints
from limbeck.errors import TokenizerMismatchError

_SPACE = "▁"


@dataclass(frozen=True)
class Spelling:
    """What the ids of one tokenizer spell, ids past its tokens included."""

    pieces: tuple[bytes | None, ...]
    """Bytes of every id that is text; None for special, unknown and unused ids."""
    literals: Mapping[int, bytes]
    """Special tokens as chat templates write them."""

    @cached_property
    def id_of(self) -> Mapping[bytes, int]:
        """Ids by their bytes; of equal ones text before special tokens, then the smallest id."""
        texts = {number: piece for number, piece in enumerate(self.pieces) if piece is not None}
        found: dict[bytes, int] = {}
        for number, piece in (*texts.items(), *sorted(self.literals.items())):
            found.setdefault(piece, number)
        return found

    def bytes_of(self, token: int) -> bytes | None:
        """Return a token's bytes, a special token's as its template writes it; None of an id that spells nothing."""
        piece = self.pieces[token] if 0 <= token < len(self.pieces) else None
        return self.literals.get(token) if piece is None else piece

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self.pieces)

    def spell(self, tokens_T: Sequence[int] | Ids) -> list[bytes]:
        """Return each token's bytes, a special token's as its template writes it."""
        return [self._of(int(token)) for token in tokens_T]

    def edges(self, tokens_T: Sequence[int] | Ids) -> Ints:
        """Return the T + 1 byte offsets between tokens, from 0."""
        sizes = [len(piece) for piece in self.spell(tokens_T)]
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)

    def is_text(self, tokens_T: Sequence[int] | Ids) -> bool:
        """Tell whether every token is text."""
        return all(self.pieces[int(token)] is not None for token in tokens_T)

    def _of(self, token: int) -> bytes:
        piece = self.pieces[token]
        return self.literals.get(token, b"") if piece is None else piece


def spelling_of(
    tokenizer: Any, rows: int, *, name: str, advice: str = "[align] needs one that says so"
) -> Spelling:
    """Return what a tokenizer's ids spell.

    Args:
        tokenizer: A `transformers` tokenizer.
        rows: Ids that the model's head knows; those past the tokenizer's spell nothing.
        name: Whose tokenizer it is, for messages.
        advice: What to do about a tokenizer that does not say which bytes its tokens spell.

    Raises:
        TokenizerMismatchError: The tokenizer has no `tokenizers` backend, more tokens than the model has rows,
            or is of neither family.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TokenizerMismatchError(
            f"the tokenizer of {name} has no tokenizer.json form, so it is not known which bytes its tokens "
            f"spell; {advice}"
        )
    content = json.loads(backend.to_str())
    read = _reader(content, name, advice)
    special = {n: t.content for n, t in tokenizer.added_tokens_decoder.items() if t.special}
    plain = {n: t.content for n, t in tokenizer.added_tokens_decoder.items() if not t.special}
    pieces: list[bytes | None] = [None] * rows
    for token, number in backend.get_vocab(with_added_tokens=True).items():
        if number >= rows:
            raise TokenizerMismatchError(
                f"the tokenizer of {name} has token {number}, but its model only {rows} rows; "
                "give it the tokenizer that it was trained with"
            )
        if number in plain:
            pieces[number] = plain[number].encode()
        elif number not in special and number != _unknown(content["model"]):
            pieces[number] = read(token)
    return Spelling(tuple(pieces), {n: text.encode() for n, text in special.items()})


def _reader(content: Mapping[str, Any], name: str, advice: str) -> Any:
    """Return the function from a token's string to its bytes."""
    decoders = list(_decoders(content.get("decoder")))
    kinds = {decoder["type"] for decoder in decoders}
    if "ByteLevel" in kinds:
        return _byte_level
    if "Metaspace" in kinds or any(_writes_spaces(decoder) for decoder in decoders):
        return _with_fallback if content["model"].get("byte_fallback") else _sentence_piece
    raise TokenizerMismatchError(
        f"the tokenizer of {name} is neither byte-level nor of SentencePiece's kind (its decoder is "
        f"{', '.join(sorted(kinds)) or 'absent'}), so it is not known which bytes its tokens spell; "
        f"{advice}"
    )


def _decoders(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for inner in decoder["decoders"]:
            yield from _decoders(inner)
    else:
        yield decoder


def _writes_spaces(decoder: Mapping[str, Any]) -> bool:
    return decoder["type"] == "Replace" and decoder.get("pattern") == {"String": _SPACE}


def _unknown(model: Mapping[str, Any]) -> int | None:
    """Return the id of the unknown token, which spells nothing, even where it is not marked as special."""
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    vocabulary = model.get("vocab")
    return vocabulary.get(model.get("unk_token")) if isinstance(vocabulary, dict) else None


def _alphabet() -> dict[str, int]:
    """Return the visible character of each byte, as GPT-2 assigns them.

    Bytes that print stand for themselves; the others take the code points from 256 on, in their order.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    return {chr(byte): byte for byte in visible} | {
        chr(256 + place): byte for place, byte in enumerate(hidden)
    }


_BYTE_OF = _alphabet()


def _byte_level(token: str) -> bytes | None:
    if any(letter not in _BYTE_OF for letter in token):
        return None
    return bytes(_BYTE_OF[letter] for letter in token)


def _sentence_piece(token: str) -> bytes:
    return token.replace(_SPACE, " ").encode()


def _with_fallback(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return _sentence_piece(token)
