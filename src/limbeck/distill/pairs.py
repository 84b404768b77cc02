"""The same documents in a teacher's tokens and in a student's, with the passages that both hold.

Chats: each side renders the conversation with its own template. What is aligned is the content of the answers,
without the white space that a template puts around it or takes away; headers and other turns belong to each side
alone. The first special token after an answer ends the turn, and one side's end stands for the other's.

Texts: each side puts the token that begins every text before each piece, if it has one. A text is cut into pieces
where both sides have a boundary.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from limbeck.chat import Message
from limbeck.distill.align import (
    KINDS,
    Pair,
    Passage,
    Spans,
    common_edges,
    loss_of,
    read_passage,
    spans_of,
)
from limbeck.distill.corpus import (
    Chat,
    Corpus,
    Counts,
    Record,
    answer_places,
    count_sides,
    render,
    special_ids,
    text_ids,
    token_ids,
)
from limbeck.distill.prefix import prefixed
from limbeck.distill.spelling import Spelling
from limbeck.distill.targets import Document, Ids, Ints
from limbeck.errors import CorpusError

_TURN = (Message("user", "a"), Message("assistant", "b"))


@dataclass(frozen=True, slots=True)
class Side:
    """How one model reads text."""

    tokenizer: Any
    """A `transformers` tokenizer."""
    spelling: Spelling
    prefix: Chat = ()
    """Turns that only this side reads, before every conversation."""
    context: int | None = None
    """Tokens it can read at once."""


def turn_ends(tokenizer: Any) -> frozenset[int]:
    """Return the special token that a chat template puts after an answer; empty where there is none."""
    if tokenizer.chat_template is None:
        return frozenset()
    probe = Record(_TURN, "", heldout=False, where="the chat template")
    text = render(probe, _TURN, tokenizer, ask=False)
    ids = token_ids(tokenizer, text)
    places = answer_places(probe, _TURN, text, ids, tokenizer) or {}
    special = special_ids(tokenizer)
    found = [n for start, stop in places.values() for n in ids[start:stop] if n in special]
    return frozenset(found[:1])


def pair_up(
    corpus: Corpus, student: Side, teacher: Side, *, max_length: int
) -> tuple[list[Pair], Counts]:
    """Turn texts and answered chats into pairs, with the counts brought up to date.

    Args:
        corpus: Texts or chats with answers.
        student: How the student reads.
        teacher: How the teacher reads.
        max_length: Tokens of the student a document, at most; longer text is cut, a longer chat dropped.

    Raises:
        CorpusError: As `corpus.tokenise`.
    """
    if corpus.kind == "prompts":
        raise CorpusError(
            f"{corpus.records[0].where} has no answer: add responses, or let the teacher write them "
            "with a [generate] section"
        )
    pairs: list[Pair] = []
    dropped = {"cut": 0, "too_long": 0, "too_short": 0, "inseparable": 0, "unaligned": 0}
    for record in corpus.records:
        if isinstance(record.content, str):
            prefixed(record, teacher.prefix)  # refuses
            found = list(_text_pairs(record, record.content, student, teacher, max_length, dropped))
            dropped["cut"] += len(found) > 1
            pairs += found
        else:
            pair = chat_pair(record, student, teacher, max_length=max_length)
            if isinstance(pair, Pair):
                pairs.append(pair)
            else:
                dropped[pair] += 1
    counts = replace(corpus.counts, **dropped)
    return pairs, count_sides(counts, [p.student for p in pairs], max_length)


def chat_pair(
    record: Record,
    student: Side,
    teacher: Side,
    *,
    max_length: int,
    only_last: bool = False,
    ended: bool = True,
) -> Pair | str:
    """Return a chat as both sides read it, or the name of the count it is dropped under.

    Args:
        record: A chat that ends with an answer.
        student: How the student reads.
        teacher: How the teacher reads.
        max_length: Tokens of the student, at most.
        only_last: Whether the last answer alone is a passage.
        ended: Whether the last answer came to its end; one that was cut has no end of turn.
    """
    told = prefixed(record, teacher.prefix)
    chat = told[len(teacher.prefix) :]
    first = len(chat) - 1 if only_last else 0
    ours = _rendered(record, chat, student, first)
    theirs = _rendered(record, told, teacher, first)
    if ours is None or theirs is None:
        return "inseparable"
    passages: list[Passage] = []
    for turn in ours.places:
        passage = _answer(chat[turn].content, turn, ours, theirs)
        if passage is None:
            return "unaligned"
        passages.append(passage)
    student_T, teacher_T = ours.tokens_T, theirs.tokens_T
    if not ended:
        passages[-1] = passage = _unended(passages[-1])
        student_T, teacher_T = student_T[: passage.student.stop], teacher_T[: passage.teacher.stop]
    if len(student_T) > max_length or _beyond(teacher, teacher_T):
        return "too_long"
    return _pair(record, student_T, teacher_T, passages)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A chat as one side reads it."""

    side: Side
    tokens_T: Ids
    places: Mapping[int, tuple[int, int]]
    """Where each answer's tokens start and stop, by turn, counted without the side's prefix."""


def _rendered(record: Record, turns: Chat, side: Side, first: int) -> _Rendered | None:
    text = render(record, turns, side.tokenizer, ask=False)
    ids = token_ids(side.tokenizer, text)
    before = len(side.prefix)
    places = answer_places(record, turns, text, ids, side.tokenizer, first + before)
    if places is None:
        return None
    tokens_T = np.asarray(ids, dtype=np.int32)
    return _Rendered(side, tokens_T, {turn - before: at for turn, at in places.items()})


def _answer(content: str, turn: int, ours: _Rendered, theirs: _Rendered) -> Passage | None:
    """Find an answer on both sides; where a template trims white space, what is left of it."""
    for text in dict.fromkeys((content, content.strip())):
        found = [_spans(text.encode(), turn, rendered) for rendered in (ours, theirs)]
        if found[0] is not None and found[1] is not None:
            return Passage(text.encode(), found[0], found[1])
    return None


def _spans(content: bytes, turn: int, rendered: _Rendered) -> Spans | None:
    start, stop = rendered.places[turn]
    tokens_T, side = rendered.tokens_T, rendered.side
    spans = spans_of(side.spelling, tokens_T, content, start, stop)
    if spans is None:
        return None
    special = special_ids(side.tokenizer)
    ends = [n for n in range(spans.stop, stop) if int(tokens_T[n]) in special]
    return replace(spans, end=ends[0] if ends else None)


def _unended(passage: Passage) -> Passage:
    return Passage(
        passage.content, replace(passage.student, end=None), replace(passage.teacher, end=None)
    )


def _beyond(side: Side, tokens_T: Ids) -> bool:
    return side.context is not None and len(tokens_T) > side.context


def _pair(
    record: Record, student_T: Ids, teacher_T: Ids, passages: Sequence[Passage]
) -> Pair | str:
    silent_T = np.zeros(len(student_T), dtype=np.bool_)
    document = Document(student_T, silent_T, record.heldout, record.key)
    pair = Pair(document, teacher_T, tuple(passages))
    loss_T = loss_of(pair.rows(), len(student_T))
    return replace(pair, student=replace(document, loss_T=loss_T)) if loss_T.any() else "too_short"


# Plain text.


def _text_pairs(
    record: Record,
    text: str,
    student: Side,
    teacher: Side,
    max_length: int,
    dropped: dict[str, int],
) -> Iterator[Pair]:
    content = text.encode()
    ours, theirs = (_Text.read(side, text) for side in (student, teacher))
    if ours is None or theirs is None:
        dropped["unaligned"] += 1
        return
    edges = common_edges(ours.spans, theirs.spans, len(content))
    edges = np.union1d(edges, [0, len(content)])
    rooms = max_length, teacher.context
    for start, stop in _pieces(edges, (ours, theirs), rooms, dropped):
        (student_T, mine), (teacher_T, other) = ours.cut(start, stop), theirs.cut(start, stop)
        passage = Passage(content[start:stop], mine, other)
        pair = _pair(record, student_T, teacher_T, [passage])
        if isinstance(pair, Pair):
            yield pair
        else:
            dropped[pair] += 1


@dataclass(frozen=True, slots=True)
class _Text:
    """A whole text as one side reads it."""

    opening_T: Ids
    """The token that begins every text, or nothing."""
    body_T: Ids
    spans: Spans

    @classmethod
    def read(cls, side: Side, text: str) -> "_Text | None":
        """Read a text; None where its tokens do not spell it."""
        opening_T, body_T = (np.asarray(x, np.int32) for x in text_ids(side.tokenizer, text))
        spans = spans_of(side.spelling, body_T, text.encode(), 0, len(body_T))
        return None if spans is None else cls(opening_T, body_T, spans)

    def begins(self, edges: Ints) -> Ints:
        """Return the number of the token that begins at (or holds) each offset."""
        return np.searchsorted(self.spans.edges_M1, edges, side="right") - 1

    def ends(self, edges: Ints) -> Ints:
        """Return how many tokens have ended at (or hold) each offset."""
        return np.searchsorted(self.spans.edges_M1, edges, side="left")

    def cut(self, start: int, stop: int) -> tuple[Ids, Spans]:
        """Return the document of a piece, and where the piece lies in it."""
        first = int(self.begins(np.array(start)))
        last = int(self.ends(np.array(stop)))
        begin = self.spans.first
        tokens_T = np.concatenate([self.opening_T, self.body_T[begin + first : begin + last]])
        edges = self.spans.edges_M1[first : last + 1] - start
        return tokens_T, Spans(len(self.opening_T), edges, None)


def _pieces(
    edges: Ints,
    sides: tuple[_Text, _Text],
    rooms: tuple[int, int | None],
    dropped: dict[str, int],
) -> Iterator[tuple[int, int]]:
    """Yield stretches of bytes between boundaries of both sides, each as long as has room on both."""
    at = 0
    while at < len(edges) - 1:
        furthest = len(edges) - 1
        for side, room in zip(sides, rooms, strict=True):
            if room is not None:
                most = int(side.begins(edges[at])) + room - len(side.opening_T)
                furthest = min(furthest, int(np.searchsorted(side.ends(edges), most, "right")) - 1)
        if furthest > at:
            yield int(edges[at]), int(edges[furthest])
        else:
            dropped["too_long"] += 1
        at = max(furthest, at + 1)


def pair_lines(pairs: Sequence[Pair], shared: int) -> Iterator[dict[str, Any]]:
    """Yield each pair as JSON values; the first `shared` tokens of the teacher's are left out."""
    for pair in pairs:
        document = pair.student
        yield {
            "key": document.key,
            "heldout": document.heldout,
            "tokens": document.tokens_T.tolist(),
            "loss": np.flatnonzero(document.loss_T).tolist(),
            "teacher": pair.teacher_T[shared:].tolist(),
            "passages": [passage.as_json() for passage in pair.passages],
        }


def read_pair(line: Mapping[str, Any], shared_T: Ids, spellings: tuple[Spelling, Spelling]) -> Pair:
    """Rebuild a pair from its line and the tokens that all of the teacher's documents begin with.

    Args:
        line: Of `pair_lines`.
        shared_T: Those tokens.
        spellings: The student's, then the teacher's.
    """
    student_T = np.asarray(line["tokens"], dtype=np.int32)
    teacher_T = np.concatenate([shared_T, np.asarray(line["teacher"], dtype=np.int32)])
    loss_T = np.zeros(len(student_T), dtype=np.bool_)
    loss_T[line["loss"]] = True
    passages = tuple(
        read_passage(value, student_T, teacher_T, spellings) for value in line["passages"]
    )
    return Pair(Document(student_T, loss_T, line["heldout"], line["key"]), teacher_T, passages)


def kind_counts(pairs: Sequence[Pair]) -> dict[str, int]:
    """Return how many of the student's loss positions lie in which way beside the teacher's tokens."""
    kinds = [pair.rows().kind_R for pair in pairs]
    counts = np.bincount(np.concatenate(kinds), minlength=len(KINDS)) if kinds else [0] * len(KINDS)
    return {name: int(count) for name, count in zip(KINDS, counts, strict=True)}
