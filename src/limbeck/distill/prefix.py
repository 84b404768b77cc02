"""Prompt distillation: what the teacher reads before every conversation, and the student never sees.

The student's document is the conversation alone. The teacher reads the same conversation after a system prompt, or
after examples, so its tokens around the answers differ; the answers' own tokens are the same, and what the
teacher says at them is what the student learns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from limbeck.chat import Message
from limbeck.distill.corpus import (
    Chat,
    Corpus,
    Counts,
    Prompt,
    Record,
    Tokenizer,
    chat_document,
    count_sides,
    prompt_ids,
    render,
    token_ids,
    tokenise_prompts,
)
from limbeck.distill.recipe import TeacherRecipe
from limbeck.distill.targets import Document, Ids
from limbeck.errors import CorpusError, RecipeError

_QUESTION = (Message("user", "a"),)
_PROBE = Record(_QUESTION, "", heldout=False, where="teacher.system")


@dataclass(frozen=True, slots=True)
class Read:
    """What both sides read of one conversation, the same answers in it."""

    student: Document
    teacher: Document
    """Its loss positions are the student's, one to one and in order."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt as both sides read it."""

    student: Prompt
    teacher_T: Ids


def read_prefix(recipe: TeacherRecipe, base: Path) -> Chat:
    """Return the turns that only the teacher reads.

    Raises:
        RecipeError: `system_file` cannot be read, or is empty.
    """
    system = recipe.system
    if recipe.system_file is not None:
        path = base / recipe.system_file
        try:
            system = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise RecipeError(f"teacher.system_file {path} does not exist") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"teacher.system_file {path} cannot be read: {error}") from None
        if not system:
            raise RecipeError(f"teacher.system_file {path} is empty; it must hold a system prompt")
    opening = () if system is None else (Message("system", system),)
    return (*opening, *(Message(m.role, m.content) for m in recipe.prefix_messages))


def check_room(
    prefix: Chat, tokenizer: Tokenizer, *, context: int | None, max_length: int, name: str
) -> int:
    """Return how many tokens the prefix adds to a conversation.

    Raises:
        RecipeError: With it, the longest document allowed is beyond the teacher's context.
        CorpusError: The tokenizer has no chat template, or it refuses the prefix.
    """
    if not prefix:
        return 0
    bare, told = (
        len(token_ids(tokenizer, render(_PROBE, (*before, *_QUESTION), tokenizer, ask=True)))
        for before in ((), prefix)
    )
    added = told - bare
    if context is not None and added + max_length > context:
        raise RecipeError(
            f"the teacher's prompt adds {added} tokens to documents of up to corpus.max_length = {max_length}, "
            f"together beyond the context of {name}, {context} tokens; shorten teacher.system or "
            "teacher.prefix_messages, or lower corpus.max_length"
        )
    return added


def prefixed(record: Record, prefix: Chat) -> Chat:
    """Return a conversation as the teacher reads it.

    Raises:
        CorpusError: The record is plain text, or has a system turn beside the prefix's.
    """
    if not prefix:
        return record.content if isinstance(record.content, tuple) else ()
    if isinstance(record.content, str):
        raise CorpusError(
            f"{record.where} is plain text, before which no teacher.system can stand; use prompts or chats"
        )
    if prefix[0].role == "system" and record.content[0].role == "system":
        raise CorpusError(
            f"{record.where} has a system turn, and so has the teacher's prompt; only one can stand first"
        )
    return (*prefix, *record.content)


def read_twice(
    corpus: Corpus, tokenizer: Tokenizer, prefix: Chat, *, max_length: int
) -> tuple[list[Read], Counts]:
    """Turn answered chats into what each side reads, with the counts brought up to date.

    Raises:
        CorpusError: As `corpus.tokenise`, or a record that no prefix can stand before.
    """
    reads: list[Read] = []
    dropped = {"too_long": 0, "inseparable": 0}
    for record in corpus.records:
        told = prefixed(record, prefix)
        student = chat_document(record, told[len(prefix) :], tokenizer)
        teacher = chat_document(record, told, tokenizer, first=len(prefix))
        if student is None or teacher is None or not _same_answers(student, teacher):
            dropped["inseparable"] += 1
        elif len(student.tokens_T) > max_length:
            dropped["too_long"] += 1
        else:
            reads.append(Read(student, teacher))
    counts = replace(corpus.counts, **dropped)
    return reads, count_sides(counts, [r.student for r in reads], max_length)


def ask_twice(
    corpus: Corpus, tokenizer: Tokenizer, prefix: Chat, *, max_length: int
) -> tuple[list[Asked], Counts]:
    """Turn prompts into what each side reads, dropping those that leave no room for an answer.

    Args:
        corpus: Prompts.
        tokenizer: Of both sides.
        prefix: What only the teacher reads.
        max_length: Tokens that a prompt must stay below as the student reads it.

    Raises:
        CorpusError: As `corpus.tokenise_prompts`, or a record that no prefix can stand before.
    """
    found = tokenise_prompts(corpus, tokenizer, max_length=max_length)
    kept = iter(found.prompts)
    asked: list[Asked] = []
    for record in corpus.records:
        if len(prompt_ids(record, tokenizer)) < max_length:
            told = replace(record, content=prefixed(record, prefix))
            asked.append(Asked(next(kept), prompt_ids(told, tokenizer)))
    return asked, found.counts


def shared_length(tokens: Sequence[Ids], most: int) -> int:
    """Return how many tokens all sequences begin with, at most `most`."""
    if not tokens:
        return 0
    first, shared = tokens[0], min(most, min(map(len, tokens)))
    for other in tokens[1:]:
        same = first[:shared] == other[:shared]
        shared = shared if same.all() else int(np.argmin(same))
    return shared


def _same_answers(student: Document, teacher: Document) -> bool:
    ours, theirs = (d.tokens_T[1:][d.loss_T[:-1]] for d in (student, teacher))
    return np.array_equal(ours, theirs)
