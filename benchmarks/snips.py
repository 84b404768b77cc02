"""SNIPS utterances with their intents and slots, and the one way in which an answer is written.

An answer is `intent | slot=value; slot=value`, slots in the order of the utterance, values as they stand there
with single spaces, and the intent alone where there are no slots. No value holds a semicolon and no slot name
an equals sign, so that a frame has one text and a text at most one frame: an answer is right exactly when its
text is the gold text.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from limbeck.errors import CorpusError

Split = Literal["train", "valid", "test"]

_OPENING, _BETWEEN, _IS = " | ", "; ", "="
_BEGIN, _INSIDE, OUTSIDE = "B-", "I-", "O"


@dataclass(frozen=True, slots=True)
class Frame:
    """What an utterance means."""

    intent: str
    slots: tuple[tuple[str, str], ...]
    """(slot, value) in the order of the utterance."""

    @property
    def text(self) -> str:
        """The answer that says it.

        Raises:
            CorpusError: A part is empty or holds what separates parts.
        """
        for slot, value in self.slots:
            _check(slot, forbidden=(_IS, ";", "|"))
            _check(value, forbidden=(";",))
        _check(self.intent, forbidden=(_IS, ";", "|"))
        slots = _BETWEEN.join(f"{slot}{_IS}{value}" for slot, value in self.slots)
        return self.intent + (_OPENING + slots if slots else "")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One request with its gold labels."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    """One a word: `O`, `B-slot` or `I-slot`."""
    intent: str

    @property
    def text(self) -> str:
        """The words, with single spaces."""
        return " ".join(self.words)

    @property
    def frame(self) -> Frame:
        """Its gold frame."""
        return frame_of(self.words, self.tags, self.intent)


def frame_of(words: Sequence[str], tags: Sequence[str], intent: str) -> Frame:
    """Return the frame that tags spell; an `I-` that continues no slot of its name opens one."""
    slots: list[tuple[str, list[str]]] = []
    before = OUTSIDE
    for word, tag in zip(words, tags, strict=True):
        slot = tag[len(_BEGIN) :]
        if tag.startswith(_INSIDE) and before[len(_BEGIN) :] == slot:
            slots[-1][1].append(word)
        elif tag != OUTSIDE:
            slots.append((slot, [word]))
        before = tag
    return Frame(intent, tuple((slot, " ".join(value)) for slot, value in slots))


def parse(text: str) -> Frame | None:
    """Return the frame that an answer says, or None where it says none."""
    intent, opening, rest = text.partition(_OPENING)
    parts = [part.partition(_IS) for part in rest.split(_BETWEEN)] if opening else []
    frame = Frame(intent, tuple((slot, value) for slot, _, value in parts))
    try:
        return frame if frame.text == text else None
    except CorpusError:
        return None


def stated_intent(text: str) -> str:
    """Return what stands where an answer states its intent, whatever follows."""
    return text.partition(_OPENING)[0]


def read_split(folder: Path, split: Split) -> list[Utterance]:
    """Read `snips.SPLIT.jsonl` or `.jsonl.gz`, one object with text, slots and intent a line.

    Raises:
        CorpusError: There is no such file, or a line is of another form; the line is named.
    """
    path = _find(folder, split)
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as file
    ):
        return [_utterance(line, f"{path.name} line {n}") for n, line in enumerate(file, start=1)]


def draw(utterances: Sequence[Utterance], count: int | None, seed: int) -> list[Utterance]:
    """Return at most so many utterances, drawn by seed, in their own order; None keeps all."""
    if count is None or count >= len(utterances):
        return list(utterances)
    chosen = np.random.default_rng(seed).choice(len(utterances), count, replace=False)
    return [utterances[n] for n in sorted(chosen.tolist())]


def _find(folder: Path, split: Split) -> Path:
    names = [f"snips.{split}.jsonl", f"snips.{split}.jsonl.gz"]
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise CorpusError(
            f"{folder} holds neither {names[0]} nor {names[1]}; give its folder as --data"
        )
    return found[0]


def _utterance(line: str, where: str) -> Utterance:
    try:
        row: Any = json.loads(line)
        words, tags = tuple(row["text"].split()), tuple(row["slots"].split())
        intent = str(row["intent"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{where} is no object with text, slots and intent: {error!r}") from None
    if len(words) != len(tags) or not words:
        raise CorpusError(
            f"{where} has {len(words)} words and {len(tags)} tags; each word needs one"
        )
    if strange := [t for t in tags if t != OUTSIDE and t[:2] not in (_BEGIN, _INSIDE)]:
        raise CorpusError(f"{where} has the tag {strange[0]!r}; tags are O, B-slot and I-slot")
    return Utterance(words, tags, intent)


def _check(part: str, forbidden: Sequence[str]) -> None:
    if not part or part != " ".join(part.split()):
        raise CorpusError(f"a part of a frame must be words with single spaces, got {part!r}")
    if held := [mark for mark in forbidden if mark in part]:
        raise CorpusError(f"a part of a frame may not hold {held[0]!r}, got {part!r}")
