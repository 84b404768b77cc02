from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.chat import Message
from limbeck.distill.beginning import Beginning
from limbeck.distill.capture import answer_prompts, capture_documents, listen_densely
from limbeck.distill.corpus import Chat, Corpus, Counts, Prompt, Record
from limbeck.distill.prefix import (
    Read,
    ask_twice,
    check_room,
    prefixed,
    read_prefix,
    read_twice,
    shared_length,
)
from limbeck.distill.recipe import GenerateRecipe, MessageRecipe, TeacherRecipe
from limbeck.distill.store import StoreSpec
from limbeck.distill.targets import Document, Ids
from limbeck.errors import CorpusError, RecipeError
from limbeck.model import LocalModel

PREFIX = (
    Message("system", "You keep the mill. Answer as a miller would, and never speak of clocks."),
    Message("user", "Good morning?"),
    Message("assistant", "Flour is a penny."),
)
SPEC = StoreSpec(
    head_threshold=0.004, max_head=400, levels=4096, tail_floor=0.0
)  # the tiny teacher is nearly flat


def record(*turns: str, system: str | None = None, heldout: bool = False) -> Record:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[n % 2], text) for n, text in enumerate(turns))
    opening = () if system is None else (Message("system", system),)
    return Record((*opening, *messages), turns[0], heldout=heldout, where="line 1")


def chats(*records: Record) -> Corpus:
    kind = "chats" if len(records[0].content) % 2 == 0 else "prompts"
    return Corpus(kind, records, Counts(records=len(records)))


@pytest.fixture(scope="module")
def reads(tiny_tokenizer: Any) -> list[Read]:
    corpus = chats(
        record("hello", "The river runs."),
        record("Who bakes?", "A baker, with flour.", "And when?", "Before the town wakes up."),
        record("Count to 3.", "1, 2, 3.", heldout=True),
    )
    return read_twice(corpus, tiny_tokenizer, PREFIX, max_length=200)[0]


def text(tokenizer: Any, tokens_T: Ids) -> str:
    return tokenizer.decode(tokens_T)


def test_the_students_documents_lack_the_prefix(tiny_tokenizer: Any, reads: list[Read]) -> None:
    assert reads
    for read in reads:
        told = text(tiny_tokenizer, read.teacher.tokens_T)
        for message in PREFIX:
            assert message.content in told
            assert message.content not in text(tiny_tokenizer, read.student.tokens_T)


def test_both_sides_predict_the_same_tokens_one_to_one(reads: list[Read]) -> None:
    for read in reads:
        ours, theirs = (d.tokens_T[1:][d.loss_T[:-1]] for d in (read.student, read.teacher))
        np.testing.assert_array_equal(ours, theirs)
        assert read.student.key == read.teacher.key


def test_examples_in_the_prefix_are_not_learned(tiny_tokenizer: Any, reads: list[Read]) -> None:
    for read in reads:
        learned = text(tiny_tokenizer, read.teacher.tokens_T[1:][read.teacher.loss_T[:-1]])
        assert "penny" not in learned


def direct(teacher: LocalModel, document: Document) -> torch.Tensor:
    """The teacher's distributions over a document that it reads alone and whole."""
    with torch.no_grad():
        logits_TV = teacher.model(torch.from_numpy(document.tokens_T).long()[None]).logits[0]
    return logits_TV[torch.from_numpy(document.loss_T)].log_softmax(-1)


def cut(document: Document, known: int) -> Document:
    return Document(
        document.tokens_T[known:], document.loss_T[known:], document.heldout, document.key
    )


@pytest.mark.parametrize("shares", [False, True])
def test_targets_are_those_of_a_forward_with_the_prefix(
    tiny_teacher: LocalModel, reads: list[Read], *, shares: bool
) -> None:
    most = min(int(np.flatnonzero(r.teacher.loss_T)[0]) for r in reads)
    known = shared_length([r.teacher.tokens_T for r in reads], most) if shares else 0
    beginning = Beginning(tiny_teacher.model, reads[0].teacher.tokens_T[:known]) if shares else None
    assert not shares or known > 30
    readings = [cut(r.teacher, known) for r in reads]
    students = [r.student for r in reads]
    dense = listen_densely(tiny_teacher, students, 1.0, readings=readings, beginning=beginning)
    for read, (document, log_probs_NV) in zip(reads, dense, strict=True):
        assert document is read.student
        torch.testing.assert_close(
            log_probs_NV, direct(tiny_teacher, read.teacher), rtol=1e-4, atol=1e-4
        )
    for batch_tokens in (1, 1000):
        taught = capture_documents(
            tiny_teacher,
            students,
            SPEC,
            batch_tokens=batch_tokens,
            seed=0,
            readings=readings,
            beginning=beginning,
        )
        for read, one in zip(reads, taught, strict=True):
            assert one.document is read.student
            _assert_said(direct(tiny_teacher, read.teacher), one.targets)


def _assert_said(log_NV: torch.Tensor, said: Any) -> None:
    assert len(said) == len(log_NV)
    row_E = np.repeat(np.arange(len(said)), np.diff(said.offsets_N1))
    head = said.is_head_E
    assert head.any()
    exact_E = log_NV.exp().numpy()[row_E[head], said.ids_E[head]]
    assert np.abs(said.weights_E[head] - exact_E).max() <= 1 / SPEC.levels + 1e-5


@pytest.mark.parametrize("shares", [False, True])
def test_answers_are_written_under_the_prefix_and_kept_without_it(
    tiny_teacher: LocalModel, tiny_tokenizer: Any, *, shares: bool
) -> None:
    corpus = chats(
        *(
            record(f"Say {what}.", heldout=n == 0)
            for n, what in enumerate(("hello", "goodbye", "x"))
        )
    )
    asked, counts = ask_twice(corpus, tiny_tokenizer, PREFIX, max_length=60)
    assert (counts.train, counts.heldout) == (2, 1)
    tokens = [a.teacher_T for a in asked]
    known = shared_length(tokens, min(map(len, tokens)) - 1) if shares else 0
    beginning = Beginning(tiny_teacher.model, tokens[0][:known]) if shares else None
    recipe = GenerateRecipe(temperature=0.8, max_new_tokens=10, batch=2)
    taught = answer_prompts(
        tiny_teacher,
        [a.student for a in asked],
        recipe,
        SPEC,
        seed=1,
        asked=[t[known:] for t in tokens],
        beginning=beginning,
    )
    for one, pair in zip(taught, asked, strict=True):
        prompt_T = pair.student.tokens_T
        answer_T = one.document.tokens_T[len(prompt_T) :]
        assert one.document.tokens_T[: len(prompt_T)].tolist() == prompt_T.tolist()
        assert "miller" not in text(tiny_tokenizer, one.document.tokens_T)
        told_T = np.concatenate([pair.teacher_T, answer_T])
        loss_T = np.zeros(len(told_T), np.bool_)
        loss_T[len(pair.teacher_T) - 1 : -1] = True
        _assert_said(direct(tiny_teacher, Document(told_T, loss_T, False, "")), one.targets)


def test_a_shared_beginning_changes_no_answer(
    tiny_teacher: LocalModel, tiny_tokenizer: Any
) -> None:
    prompts = [Prompt(np.arange(3, 9 + n, dtype=np.int32), False, str(n)) for n in range(3)]
    start_P = np.arange(20, 50, dtype=np.int32)
    cold = GenerateRecipe(temperature=1e-4, max_new_tokens=8, batch=3)
    alone = answer_prompts(
        tiny_teacher,
        prompts,
        cold,
        SPEC,
        seed=0,
        asked=[np.concatenate([start_P, p.tokens_T]) for p in prompts],
    )
    beginning = Beginning(tiny_teacher.model, start_P)
    lent = answer_prompts(tiny_teacher, prompts, cold, SPEC, seed=0, beginning=beginning)
    for one, two in zip(alone, lent, strict=True):
        assert one.document.tokens_T.tolist() == two.document.tokens_T.tolist()


def test_a_prompt_longer_than_the_context_is_one_clear_error(tiny_tokenizer: Any) -> None:
    fits: dict[str, Any] = {"context": 512, "max_length": 200, "name": "tiny"}
    added = check_room(PREFIX, tiny_tokenizer, **fits)
    assert added > 30
    assert check_room((), tiny_tokenizer, context=10, max_length=200, name="tiny") == 0
    long = (Message("system", PREFIX[0].content * 12),)
    with pytest.raises(RecipeError, match=r"adds \d+ tokens .*max_length = 200.* tiny, 512 tokens"):
        check_room(long, tiny_tokenizer, **fits)


def test_a_system_prompt_comes_from_the_recipe_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("  Speak of copper.\n", encoding="utf-8")
    example = (
        MessageRecipe(role="user", content="q"),
        MessageRecipe(role="assistant", content="a"),
    )
    filed = TeacherRecipe(model="m", system_file="long.txt", prefix_messages=example)
    inline = TeacherRecipe(model="m", system="Speak of copper.", prefix_messages=example)
    assert read_prefix(filed, tmp_path) == read_prefix(inline, tmp_path)
    assert [m.role for m in read_prefix(filed, tmp_path)] == ["system", "user", "assistant"]
    assert read_prefix(TeacherRecipe(model="m"), tmp_path) == ()
    for name, content, why in (
        ("none.txt", None, "does not exist"),
        ("empty.txt", b" \n", "is empty"),
        ("bad.txt", b"\xff", "cannot be read"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(RecipeError, match=why):
            read_prefix(TeacherRecipe(model="m", system_file=name), tmp_path)


def test_records_that_no_prefix_can_stand_before_are_refused() -> None:
    plain = Record("Just text.", "k", heldout=False, where="a.txt line 3")
    with pytest.raises(CorpusError, match=r"a.txt line 3 is plain text"):
        prefixed(plain, PREFIX)
    with pytest.raises(CorpusError, match="line 1 has a system turn, and so has the teacher's"):
        prefixed(record("q", "a", system="Own."), PREFIX)
    only_examples: Chat = PREFIX[1:]
    assert len(prefixed(record("q", "a"), only_examples)) == 4


def test_what_is_too_long_or_merges_is_counted(tiny_tokenizer: Any) -> None:
    corpus = chats(
        record("q", "The river runs."),
        record("w", "The mill.", heldout=True),
        record("long", "The river runs past the mill. " * 20),
        record("merged", "\n\nthe mill"),
    )
    reads, counts = read_twice(corpus, tiny_tokenizer, PREFIX, max_length=100)
    assert (len(reads), counts.too_long, counts.inseparable) == (2, 1, 1)


@settings(deadline=None)
@given(
    tokens=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=8), min_size=1, max_size=4),
    most=st.integers(0, 9),
)
def test_a_shared_beginning_is_the_longest(tokens: list[list[int]], most: int) -> None:
    shared = shared_length([np.array(t, np.int32) for t in tokens], most)
    assert shared <= most
    assert all(t[:shared] == tokens[0][:shared] for t in tokens)
    longer = shared + 1
    can_grow = longer <= most and all(len(t) >= longer for t in tokens)
    assert not (can_grow and all(t[:longer] == tokens[0][:longer] for t in tokens))
    assert shared_length([], 3) == 0
