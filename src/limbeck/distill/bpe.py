"""A byte-level BPE tokenizer taken apart: what its tokens are made of, and the tokenizer of some of them.

BPE writes a word as its bytes and joins neighbours, always the pair that was learnt first, until no pair
is left. Let a set of tokens hold every byte and, with each token, the two tokens that BPE joins last when
it makes that token out of its bytes alone. Then a word whose tokens are all in the set falls into the very
same tokens when only merges within the set are left: by induction the pair that the full tokenizer joins
next is always still there, and no other that is there was learnt earlier. Any other word falls into shorter
pieces, and no text is lost.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from limbeck.errors import StudentError

Pair = tuple[str, str]

_SETTINGS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
    "chat_template",
    "model_max_length",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
)
"""What a tokenizer has beside its `tokenizers` half."""


@dataclass(frozen=True, slots=True)
class Bpe:
    """The parts of a byte-level BPE tokenizer that trimming needs."""

    content: Mapping[str, Any]
    """The `tokenizers` JSON."""
    ids: Mapping[str, int]
    """Token to id, added tokens included."""
    ranks: Mapping[Pair, int]
    """A pair that may be joined, to its rank; the smaller is joined first."""
    tokens: Mapping[int, str]
    """Id to token."""
    _parents: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def required(self) -> set[int]:
        """Return the ids without which some token cannot be written: bytes, added and whole tokens.

        Whole are those with a letter that is no token itself: nothing shorter spells them.
        """
        vocabulary: Mapping[str, int] = self.content["model"]["vocab"]
        unknown = self.content["model"].get("unk_token")
        letters = {token for token in vocabulary if len(token) == 1}
        return (
            {token["id"] for token in self.content["added_tokens"]}
            | {i for token, i in vocabulary.items() if token in letters or set(token) - letters}
            | ({self.ids[unknown]} if unknown is not None else set())
        )

    def closure(self, ids: Iterable[int]) -> set[int]:
        """Return ids with everything that they are made of."""
        closed: set[int] = set()
        waiting = list(ids)
        while waiting:
            token = waiting.pop()
            if token not in closed:
                closed.add(token)
                waiting.extend(self.parents(token))
        return closed

    def within(self, kept: Collection[int]) -> dict[Pair, int]:
        """Return the pairs whose parts and whose whole are all kept, with their ranks."""
        words = {self.tokens[i] for i in kept}
        return {
            pair: rank
            for pair, rank in self.ranks.items()
            if pair[0] in words and pair[1] in words and pair[0] + pair[1] in words
        }

    def spelling(self, kept: Collection[int]) -> dict[int, tuple[int, ...]]:
        """Return how the tokenizer of the kept tokens writes each of the others, each by itself.

        Args:
            kept: Ids, ascending, closed; their places are the new ids.
        """
        ranks, numbers = self.within(kept), {self.tokens[old]: new for new, old in enumerate(kept)}
        return {
            i: tuple(numbers[part] for part in joined(token, ranks))
            for i, token in self.tokens.items()
            if token not in numbers
        }

    def parents(self, token: int) -> tuple[int, ...]:
        """Return the two ids that are joined last to make a token; none of a byte or an added token."""
        if token not in self._parents:
            pair = last_merge(self.tokens[token], self.ranks)
            self._parents[token] = () if pair is None else tuple(self.ids[part] for part in pair)
        return self._parents[token]


def last_merge(token: str, ranks: Mapping[Pair, int]) -> Pair | None:
    """Return the pair that BPE joins last when it makes a token out of its characters.

    None where it makes none: the token is a single character, or is never made (an added token).
    """
    pair = cast("Pair", tuple(joined(token, ranks, down_to=2)))
    return pair if len(pair) == 2 and pair in ranks else None


def joined(word: str, ranks: Mapping[Pair, int], *, down_to: int = 1) -> list[str]:
    """Join the characters of a word as BPE does, until no pair is left or so few parts are.

    Each time the pair of least rank is joined, of equals the leftmost.
    """
    parts = list(word)
    while len(parts) > down_to:
        found = [
            (rank, i)
            for i in range(len(parts) - 1)
            if (rank := ranks.get((parts[i], parts[i + 1]))) is not None
        ]
        if not found:
            break
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def read_bpe(tokenizer: Any) -> Bpe:
    """Take a tokenizer apart.

    Raises:
        StudentError: It is no byte-level BPE, so that a part of its tokens could not write every text.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    kind = model.get("type")
    splits = content.get("pre_tokenizer") or {}
    steps = {step["type"] for step in (splits.get("pretokenizers") or [splits]) if step}
    if kind != "BPE" or "ByteLevel" not in steps:
        raise StudentError(
            f"student.vocabulary trims byte-level BPE tokenizers, and the teacher's is {kind} over "
            f"{', '.join(sorted(steps)) or 'plain text'}; leave student.vocabulary out"
        )
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(option):
            raise StudentError(
                f"the teacher's tokenizer has {option} = {model[option]!r}, with which it cannot be trimmed; "
                "leave student.vocabulary out"
            )
    pairs = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    ids = model["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    return Bpe(
        content=content,
        ids=ids,
        ranks={cast("Pair", pair): rank for rank, pair in enumerate(pairs)},
        tokens={number: token for token, number in ids.items()},
    )


def trimmed_tokenizer(tokenizer: Any, bpe: Bpe, kept: Collection[int]) -> Any:
    """Return a tokenizer of some of a tokenizer's tokens, numbered from 0 in ascending order of their ids.

    Args:
        tokenizer: A `transformers` tokenizer; it stays as it is.
        bpe: `read_bpe(tokenizer)`.
        kept: Ids closed under `Bpe.closure`, with all that `Bpe.required` names.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    ranks = bpe.within(kept)
    numbers = {bpe.tokens[old]: new for new, old in enumerate(sorted(kept))}
    content = json.loads(json.dumps(bpe.content))
    model = content["model"]
    model["vocab"] = {token: numbers[token] for token in model["vocab"] if token in numbers}
    model["merges"] = [list(pair) for pair in sorted(ranks, key=ranks.__getitem__)]
    for token in content["added_tokens"]:
        token["id"] = numbers[token["content"]]
    _renumber_templates(content.get("post_processor"), numbers)
    settings = {name: getattr(tokenizer, name, None) for name in _SETTINGS}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        **{name: value for name, value in settings.items() if value is not None},
    )


def _renumber_templates(part: Any, numbers: Mapping[str, int]) -> None:
    """Put new ids into what writes special tokens around a text; it is nested where there are several."""
    if not isinstance(part, dict):
        return
    for special in (part.get("special_tokens") or {}).values():
        special["ids"] = [numbers[token] for token in special["tokens"]]
    for inner in part.get("processors") or ():
        _renumber_templates(inner, numbers)
    for end in ("sep", "cls"):  # of Bert's and Roberta's form
        if isinstance(part.get(end), list):
            part[end] = [part[end][0], numbers[part[end][0]]]
