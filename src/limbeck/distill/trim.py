"""Trim a teacher's vocabulary to what a training text needs."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from limbeck.distill.bpe import Bpe, read_bpe, trimmed_tokenizer
from limbeck.distill.embedding import keep_tokens, named_tokens
from limbeck.distill.targets import Taught
from limbeck.distill.vocabulary import Size, Vocabulary, choose_tokens, said
from limbeck.errors import StudentError
from limbeck.model import LocalModel


def check_trims(teacher: LocalModel, size: Size) -> None:
    """Refuse a vocabulary that cannot be made, before anything costly is done for it.

    Raises:
        RecipeError: A size out of its range.
        StudentError: The teacher's tokenizer cannot be trimmed.
    """
    bpe, required = _required(teacher)
    tokens = len(teacher.tokenizer)
    choose_tokens(
        size,
        said_V=np.zeros(tokens, np.float32),
        needed=(),
        required=required,
        closure=bpe.closure,
    )


def decide(teacher: LocalModel, taught: Iterable[Taught], size: Size) -> Vocabulary:
    """Return the tokens that a student keeps, from its training documents and the teacher's targets there.

    Raises:
        RecipeError: A size out of its range.
        StudentError: The teacher's tokenizer cannot be trimmed.
    """
    bpe, required = _required(teacher)
    said_V, needed = said(taught, len(teacher.tokenizer))
    kept_K = choose_tokens(
        size, said_V=said_V, needed=needed, required=required, closure=bpe.closure
    )
    rows = teacher.model.get_input_embeddings().weight.shape[0]
    return Vocabulary(kept_K, rows, bpe.spelling(kept_K.tolist()))


def trim(model: Any, tokenizer: Any, vocabulary: Vocabulary) -> Any:
    """Cut a model down to a vocabulary, in place, and return the tokenizer that goes with it."""
    keep_tokens(model, vocabulary)
    return trimmed_tokenizer(tokenizer, read_bpe(tokenizer), vocabulary.kept_K.tolist())


def _required(teacher: LocalModel) -> tuple[Bpe, set[int]]:
    bpe = read_bpe(teacher.tokenizer)
    named = named_tokens(teacher.model)
    if foreign := sorted(named - bpe.tokens.keys()):
        raise StudentError(
            f"the configuration of {teacher.name} names token {foreign[0]}, which its tokenizer does not "
            "have; leave student.vocabulary out"
        )
    return bpe, bpe.required() | named
