"""Ask a teacher about text that the student reads with another tokenizer.

Its distributions are summed over labels while they are dense; only then are they made sparse. So a store of pairs holds
the student's documents, and targets over the student's ids and four more (`labels`).
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from limbeck.distill.align import END, WHOLE, Pair, Rows, select
from limbeck.distill.beginning import Beginning
from limbeck.distill.capture import hidden_states, seed_of, token_batches
from limbeck.distill.forward import Halves, split
from limbeck.distill.labels import Labels
from limbeck.distill.next_bytes import Said, label_probs, last_needed
from limbeck.distill.store import StoreSpec, sparsify
from limbeck.distill.targets import Document, Taught, concatenate
from limbeck.model import LocalModel

Method = Literal["chunks", "uld"]
_ROWS = 128
"""Rows summed at once: with them come about as many of the teacher's distributions, 128 x 49,152 x 4 B = 25 MB."""


def pair_order(pairs: Sequence[Pair]) -> list[Pair]:
    """Sort pairs by the teacher's tokens, longest first, ties by key: batches hold little padding."""
    return sorted(
        pairs, key=lambda p: (-len(p.teacher_T), p.student.key, p.student.tokens_T.tobytes())
    )


def capture_pairs(
    teacher: LocalModel,
    pairs: Sequence[Pair],
    labels: Labels,
    spec: StoreSpec,
    *,
    method: Method,
    batch_tokens: int,
    seed: int,
    skip: int = 0,
    beginning: Beginning | None = None,
) -> Iterator[Taught]:
    """Yield the student's document of each pair after the first `skip`, with targets over labels.

    Args:
        teacher: The model to ask.
        pairs: In `pair_order`.
        labels: What its distributions are summed over.
        spec: What to keep of each distribution; its temperature is 1.
        method: `chunks` sums over labels; `uld` sorts, and the likeliest token has id 0.
        batch_tokens: Tokens of the teacher a forward at the most, padding included.
        seed: Seeds the tail samples, together with each document's tokens.
        skip: Pairs already captured, from the front.
        beginning: What all of the teacher's documents begin with.
    """
    known = len(beginning or ())
    before = 0
    for batch in token_batches([len(p.teacher_T) - known for p in pairs], batch_tokens):
        if before + len(batch) > skip:
            heard = listen_to_pairs(
                teacher, [pairs[i] for i in batch], labels, method=method, beginning=beginning
            )
            taught = [_sparse(pair.student, parts, spec, seed) for pair, parts in heard]
            yield from taught[max(0, skip - before) :]
        before += len(batch)


@torch.inference_mode()
def listen_to_pairs(
    teacher: LocalModel,
    pairs: Sequence[Pair],
    labels: Labels,
    *,
    method: Method,
    beginning: Beginning | None = None,
) -> Iterator[tuple[Pair, list[Tensor]]]:
    """Yield pairs, read together, with the log-probabilities of labels [R, size] at their rows, in parts."""
    halves = split(teacher.model)
    known = len(beginning or ())
    states = hidden_states(halves, [p.teacher_T[known:] for p in pairs], beginning)
    for pair, hidden_TD in zip(pairs, states, strict=True):
        yield pair, list(_parts(halves, pair, hidden_TD, known, labels, method))


def _sparse(document: Document, parts: list[Tensor], spec: StoreSpec, seed: int) -> Taught:
    generator = torch.Generator().manual_seed(seed_of(seed, document))
    kept = [sparsify(log_probs_RL, None, spec, generator) for log_probs_RL in parts]
    return Taught(document, concatenate(kept))


def _parts(
    halves: Halves, pair: Pair, hidden_TD: Tensor, known: int, labels: Labels, method: Method
) -> Iterator[Tensor]:
    rows, contents = pair.rows(), pair.row_contents()
    for start in range(0, len(rows), _ROWS):
        part = select(rows, slice(start, start + _ROWS))
        first = int(part.teacher_R.min())
        last = max(last_needed(part, row, pair, labels) for row in range(len(part)))
        hidden_KD = hidden_TD[first - 1 - known : last - known]
        probs_KV = halves.head(hidden_KD).float().softmax(-1).cpu()
        said = Said(probs_KV, first, pair.teacher_T)
        if method == "uld":
            yield _sorted(said, part, labels).log()
        else:
            yield label_probs(said, part, pair, labels, contents[start : start + _ROWS]).log()


def _sorted(said: Said, rows: Rows, labels: Labels) -> Tensor:
    """Return probabilities in falling order where both sides begin a token, and nothing elsewhere."""
    probs_RL = said.probs_KV.new_zeros(len(rows), labels.student.size)
    both_R = (rows.kind_R == WHOLE) | (rows.kind_R == END)
    rest = labels.student.rest
    probs_RL[torch.from_numpy(~both_R), rest] = 1.0
    at = torch.from_numpy(np.flatnonzero(both_R))
    falling_RV = said.probs_KV[torch.from_numpy(rows.teacher_R[both_R] - said.first)]
    falling_RV = falling_RV.sort(-1, descending=True).values
    ranks = min(falling_RV.shape[1], len(labels.student.label_V))
    probs_RL[at, :ranks] = falling_RV[:, :ranks]
    probs_RL[at, rest] = falling_RV[:, ranks:].sum(-1)
    return probs_RL
