"""The rows of a model's embedding and head, one a token, and the ids that its configuration names."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from limbeck.distill.vocabulary import Vocabulary
from limbeck.errors import StudentError

_LISTS_OF_TOKENS = (
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "force_words_ids",
    "sequence_bias",
    "forced_decoder_ids",
)
"""Generation settings that name tokens otherwise than by `..._token_id`."""


def named_tokens(model: Any) -> set[int]:
    """Return the token ids that a model's configuration and generation settings name.

    Raises:
        StudentError: A setting that names tokens in a form that cannot be renumbered.
    """
    generation = getattr(model, "generation_config", None)
    for name in _LISTS_OF_TOKENS:
        if getattr(generation, name, None):
            raise StudentError(
                f"the generation settings name tokens in {name}, which cannot be renumbered; "
                "leave student.vocabulary out"
            )
    return {i for _, _, ids in _settings(model) for i in ids}


@torch.no_grad()
def keep_tokens(model: Any, vocabulary: Vocabulary) -> None:
    """Cut a model's embedding and head down to the kept tokens, in place; tied ones stay tied.

    Args:
        model: A causal `transformers` model whose rows are the teacher's.
        vocabulary: What is kept; it holds `named_tokens(model)`.
    """
    rows = torch.from_numpy(vocabulary.kept_K).to(model.device)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = head is not None and head.weight is embedding.weight
    embedding.weight = nn.Parameter(embedding.weight[rows].clone())
    embedding.num_embeddings = len(rows)
    # A padding row would be left out of the gradient, and its number is no longer right.
    embedding.padding_idx = None
    if head is not None:
        head.weight = embedding.weight if is_tied else nn.Parameter(head.weight[rows].clone())
        head.out_features = len(rows)
        if head.bias is not None:
            head.bias = nn.Parameter(head.bias[rows].clone())
    numbers = {int(old): new for new, old in enumerate(vocabulary.kept_K)}
    for settings, name, ids in list(_settings(model)):
        new = [numbers[i] for i in ids]
        setattr(settings, name, new if isinstance(getattr(settings, name), list) else new[0])
    model.config.vocab_size = len(rows)
    if hasattr(model, "vocab_size"):
        model.vocab_size = len(rows)


def _settings(model: Any) -> Iterator[tuple[Any, str, list[int]]]:
    """Yield (owner, name, ids) of every setting that names tokens."""
    for owner in (model.config, getattr(model, "generation_config", None)):
        for name, value in list(vars(owner).items()) if owner is not None else ():
            if name.endswith("_token_id") and (ids := list(_ids(value))):
                yield owner, name, ids


def _ids(value: object) -> Iterable[int]:
    values = value if isinstance(value, list) else [value]
    return (i for i in values if isinstance(i, int) and i >= 0)
