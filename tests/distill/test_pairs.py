"""Two really different tokenizers: byte-level with <|im_end|>, and SentencePiece with <s>, </s> and trimming."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.chat import Message
from limbeck.distill.align import END, WHOLE, Pair
from limbeck.distill.corpus import Corpus, Counts, Record
from limbeck.distill.pairs import (
    Side,
    chat_pair,
    kind_counts,
    pair_lines,
    pair_up,
    read_pair,
    turn_ends,
)
from limbeck.distill.spelling import spelling_of
from limbeck.errors import CorpusError

Sides = tuple[Side, Side]


def side(tokenizer: Any, **more: Any) -> Side:
    return Side(tokenizer, spelling_of(tokenizer, len(tokenizer), name="either"), **more)


@pytest.fixture(scope="module")
def sides(tiny_tokenizer: Any, piece_tokenizer: Any) -> Sides:
    """The student reads sentence pieces, the teacher bytes."""
    return side(piece_tokenizer), side(tiny_tokenizer)


def chat(*turns: str) -> Record:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[n % 2], text) for n, text in enumerate(turns))
    return Record(messages, "key", heldout=False, where="line 1")


def corpus(*records: Record) -> Corpus:
    kind = "text" if isinstance(records[0].content, str) else "chats"
    more = [*records, *(Record(r.content, "other", heldout=True, where="x") for r in records)]
    return Corpus(kind, tuple(more), Counts(read=len(more), records=len(more)))


def paired(record: Record, sides: Sides, **options: Any) -> Pair:
    pair = chat_pair(record, *sides, max_length=400, **options)
    assert isinstance(pair, Pair)
    return pair


def predicted(pair: Pair, of: Side) -> list[bytes]:
    """What the student is asked for, as bytes."""
    places = np.flatnonzero(pair.student.loss_T) + 1
    return of.spelling.spell(pair.student.tokens_T[places])


@pytest.mark.parametrize("swapped", [False, True])
def test_only_the_answer_and_its_end_are_aligned(sides: Sides, swapped: bool) -> None:
    ours, theirs = sides[::-1] if swapped else sides
    answer = "Say hello to the river, 👩‍🚀."
    pair = paired(chat("Who is the miller?", answer), (ours, theirs))
    (passage,) = pair.passages
    assert passage.content == answer.encode()
    assert b"".join(predicted(pair, ours)[:-1]).strip() == answer.encode()
    end = pair.student.tokens_T[np.flatnonzero(pair.student.loss_T)[-1] + 1]
    assert {int(end)} == turn_ends(ours.tokenizer)
    rows = pair.rows()
    assert rows.kind_R[-1] == END
    assert {int(pair.teacher_T[rows.teacher_R[-1]])} == turn_ends(theirs.tokenizer)
    assert len(rows) == pair.student.positions
    assert WHOLE in rows.kind_R


def test_each_side_has_its_own_way_to_begin(sides: Sides) -> None:
    pair = paired(chat("hi", "the mill"), sides)
    ours, theirs = sides
    assert pair.student.tokens_T[0] == ours.tokenizer.bos_token_id
    assert theirs.spelling.spell(pair.teacher_T)[0] == b"<|im_start|>"
    assert b"".join(ours.spelling.spell(pair.student.tokens_T)).startswith(b"<s>[INST] hi")


def test_every_answer_of_a_conversation_is_a_passage(sides: Sides) -> None:
    record = chat("one", "the river", "two", "the town")
    assert [p.content for p in paired(record, sides).passages] == [b"the river", b"the town"]
    only = paired(record, sides, only_last=True)
    assert [p.content for p in only.passages] == [b"the town"]


def test_white_space_that_a_template_trims_is_left_out(sides: Sides) -> None:
    pair = paired(chat("hi", " the mill \n"), sides)
    assert pair.passages[0].content == b"the mill"
    same = paired(chat("hi", " the mill \n"), (sides[1], sides[1]))
    assert same.passages[0].content == b" the mill \n"


def test_an_answer_that_was_cut_has_no_end(sides: Sides) -> None:
    pair = paired(chat("hi", "the mill gri"), sides, only_last=True, ended=False)
    assert END not in pair.rows().kind_R
    assert int(pair.student.tokens_T[-1]) not in turn_ends(sides[0].tokenizer)
    assert int(pair.teacher_T[-1]) not in turn_ends(sides[1].tokenizer)


def test_the_teachers_prefix_is_read_by_the_teacher_alone(sides: Sides) -> None:
    prefix = (
        Message("system", "Speak of copper."),
        Message("user", "q"),
        Message("assistant", "the example"),
    )
    ours, theirs = sides
    told = Side(theirs.tokenizer, theirs.spelling, prefix)
    bare, pair = paired(chat("hi", "the mill"), sides), paired(chat("hi", "the mill"), (ours, told))
    assert pair.student.tokens_T.tolist() == bare.student.tokens_T.tolist()
    assert b"copper" in b"".join(theirs.spelling.spell(pair.teacher_T))
    assert [p.content for p in pair.passages] == [b"the mill"]
    moved = pair.rows().teacher_R - bare.rows().teacher_R
    assert set(moved.tolist()) == {len(pair.teacher_T) - len(bare.teacher_T)}


def test_what_cannot_be_paired_is_counted_under_its_reason(sides: Sides) -> None:
    ours, theirs = sides
    good = chat("hi", "the mill")
    special = chat("hi", "the </s> mill")
    pairs, counts = pair_up(corpus(good, special), ours, theirs, max_length=400)
    assert (len(pairs), counts.unaligned, counts.train, counts.heldout) == (2, 2, 1, 1)
    long = chat("hi", "the mill " * 40)
    _, counts = pair_up(corpus(good, long), ours, theirs, max_length=60)
    assert counts.too_long == 2
    short = Side(theirs.tokenizer, theirs.spelling, context=40)
    assert pair_up(corpus(good, long), ours, short, max_length=400)[1].too_long == 2
    prompts = Corpus("prompts", corpus(chat("hi")).records, Counts())
    with pytest.raises(CorpusError, match="has no answer"):
        pair_up(prompts, ours, theirs, max_length=60)
    with pytest.raises(CorpusError, match="nothing is left"):
        pair_up(corpus(special), ours, theirs, max_length=400)


def test_a_tokenizer_that_changes_text_is_found_out(sides: Sides, tiny_tokenizer: Any) -> None:
    content = json.loads(tiny_tokenizer.backend_tokenizer.to_str())
    content["normalizer"] = {"type": "Lowercase"}
    lower = transformers.PreTrainedTokenizerFast(
        tokenizer_object=type(tiny_tokenizer.backend_tokenizer).from_str(json.dumps(content)),
        chat_template=tiny_tokenizer.chat_template,
    )
    assert chat_pair(chat("hi", "The Mill"), side(lower), sides[1], max_length=99) == "unaligned"
    assert isinstance(chat_pair(chat("hi", "mill"), side(lower), sides[1], max_length=99), Pair)


PARTS = ["the ", "river", " mill", "é", "e\u0301", "👩🏽", "\u200d🚀", "\n", "  ", "ü"]
TEXT = (
    st.lists(st.sampled_from(PARTS), min_size=2, max_size=40)
    .map("".join)
    .filter(lambda text: len(text.strip()) > 1)
)


@settings(deadline=None, max_examples=50)
@given(text=TEXT, room=st.sampled_from([12, 24, 200]))
def test_a_text_is_cut_where_both_sides_have_a_boundary(sides: Sides, text: str, room: int) -> None:
    records = corpus(Record(text, "key", heldout=False, where="x"))
    try:
        pairs, counts = pair_up(records, *sides, max_length=room)
    except CorpusError:
        return
    train = [p for p in pairs if not p.student.heldout]
    joined = b"".join(p.passages[0].content for p in train)
    if not counts.too_long and not counts.too_short:
        assert joined == text.encode()
    for pair in train:
        assert len(pair.student.tokens_T) <= room
        assert pair.student.tokens_T[0] == sides[0].tokenizer.bos_token_id
        assert pair.rows().kind_R[0] != END


@settings(deadline=None, max_examples=30)
@given(text=TEXT)
def test_pairs_come_back_from_their_lines(sides: Sides, text: str) -> None:
    for record in (
        Record(text, "k", heldout=False, where="x"),
        chat("hi", text),
        chat("a", text, "b", text),
    ):
        try:
            pairs, _ = pair_up(corpus(record), *sides, max_length=400)
        except (
            CorpusError
        ):  # an answer whose first piece belongs to the header too: counted elsewhere
            continue
        spellings = sides[0].spelling, sides[1].spelling
        for shared in (0, 1):
            lines = json.loads(json.dumps(list(pair_lines(pairs, shared))))
            for pair, line in zip(pairs, lines, strict=True):
                again = read_pair(line, pair.teacher_T[:shared], spellings)
                assert again.teacher_T.tolist() == pair.teacher_T.tolist()
                for one, two in zip(_arrays(pair), _arrays(again), strict=True):
                    assert one == two


def _arrays(pair: Pair) -> list[list[Any]]:
    rows = pair.rows()
    columns = [getattr(rows, name).tolist() for name in rows.__slots__]
    return [
        *columns,
        pair.student.tokens_T.tolist(),
        pair.student.loss_T.tolist(),
        pair.row_contents(),
    ]


def test_positions_are_counted_by_how_spans_lie(sides: Sides) -> None:
    pair = paired(chat("hi", "the mill by the river"), sides)
    counts = kind_counts([pair, pair])
    assert sum(counts.values()) == 2 * pair.student.positions
    assert counts["end"] == 2
    assert kind_counts([]) == {"whole": 0, "inside": 0, "begun": 0, "end": 0}


def test_a_template_without_an_end_has_none(tiny_tokenizer: Any) -> None:
    bare: Callable[..., Any] = transformers.PreTrainedTokenizerFast
    open_ended = bare(
        tokenizer_object=tiny_tokenizer.backend_tokenizer,
        chat_template="{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
    )
    assert turn_ends(open_ended) == frozenset()
    assert turn_ends(bare(tokenizer_object=tiny_tokenizer.backend_tokenizer)) == frozenset()
