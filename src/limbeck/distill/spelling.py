"""Which bytes each token of a vocabulary stands for, and which token stands for given bytes.

Two families of tokenizers say so: byte-level BPE, whose vocabulary spells each byte with one printable character, and
SentencePiece-like ones, which spell a space as U+2581 and a lone byte as <0xNN>. Added tokens are spelt as they are.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.errors import TokenizerMismatchError

_SPACE = "\u2581"
_LONE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True)
class Spelling:
    """A tokenizer's tokens as bytes."""

    bytes_of: Mapping[int, bytes]
    """Of every token."""
    id_of: Mapping[bytes, int]
    """Of tokens with equal bytes the one that is not special, then the smallest id."""
    special: frozenset[int]
    """Ids that stand for no text."""


def read_spelling(tokenizer: Any) -> Spelling:
    """Return a tokenizer's vocabulary as bytes.

    Args:
        tokenizer: A `transformers` tokenizer with a `tokenizers` backend.

    Raises:
        TokenizerMismatchError: Its vocabulary does not say which bytes a token stands for (WordPiece, for one).
    """
    spell = _speller(json.loads(tokenizer.backend_tokenizer.to_str()), tokenizer)
    added = {int(n): str(t.content) for n, t in tokenizer.added_tokens_decoder.items()}
    special = frozenset(n for n, t in tokenizer.added_tokens_decoder.items() if t.special)
    bytes_of = {
        number: added[number].encode() if number in added else spell(token)
        for token, number in tokenizer.get_vocab().items()
    }
    id_of: dict[bytes, int] = {}
    for number in sorted(bytes_of, key=lambda n: (n in special, n)):
        id_of.setdefault(bytes_of[number], number)
    return Spelling(bytes_of, id_of, special)


def _speller(content: Mapping[str, Any], tokenizer: Any) -> Callable[[str], bytes]:
    kinds = set(_kinds(content.get("decoder"))) | set(_kinds(content.get("pre_tokenizer")))
    if "ByteLevel" in kinds:
        letters = _byte_letters()

        def spell(token: str) -> bytes:
            return bytes(letters[c] for c in token)

        return spell
    if kinds & {"Metaspace", "ByteFallback"}:
        return _spell_pieces
    raise TokenizerMismatchError(
        f"the tokenizer of {tokenizer.name_or_path or 'the student'} does not say which bytes a token stands for "
        f"(its decoder is {', '.join(sorted(kinds)) or 'absent'}), so an API's tokens cannot be found in it; "
        "learn from text alone, without top_logprobs"
    )


def _kinds(part: Mapping[str, Any] | None) -> Iterable[str]:
    """Yield the types of a decoder or pre-tokenizer and of its parts."""
    if part is None:
        return
    yield str(part.get("type"))
    for name in ("decoders", "pretokenizers"):
        for inner in part.get(name) or ():
            yield from _kinds(inner)


def _spell_pieces(token: str) -> bytes:
    lone = _LONE_BYTE.fullmatch(token)
    return bytes([int(lone[1], 16)]) if lone else token.replace(_SPACE, " ").encode()


def _byte_letters() -> dict[str, int]:
    """Return the byte of every letter of byte-level BPE (Radford et al. 2019, the GPT-2 encoder).

    Printable bytes of Latin-1 are spelt by themselves, the others in order by the letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(others)}
