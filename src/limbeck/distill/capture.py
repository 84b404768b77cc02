"""Ask a teacher for its distribution at every loss position: over given text, or while it writes."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from limbeck.artefact import sha256_bytes
from limbeck.distill.beginning import Beginning
from limbeck.distill.corpus import Prompt, answered
from limbeck.distill.forward import Halves, split
from limbeck.distill.recipe import GenerateRecipe
from limbeck.distill.store import StoreSpec, sparsify
from limbeck.distill.targets import Document, Ids, SparseTargets, Taught, concatenate, select
from limbeck.distill.write import Sampling, draw_answers
from limbeck.model import LocalModel

_HEAD_ROWS = 256
"""Positions that go through the head at once: 256 x 49,152 float32 is 50 MB."""


def capture_order(documents: Sequence[Document]) -> list[Document]:
    """Sort documents by length, longest first, ties by key: batches hold little padding."""
    return sorted(documents, key=lambda d: (-len(d.tokens_T), d.key))


def capture_documents(
    teacher: LocalModel,
    documents: Sequence[Document],
    spec: StoreSpec,
    *,
    batch_tokens: int,
    seed: int,
    skip: int = 0,
    readings: Sequence[Document] | None = None,
    beginning: Beginning | None = None,
) -> Iterator[Taught]:
    """Yield each document after the first `skip`, in the order given, with the teacher's targets at its loss positions.

    Args:
        teacher: The model to ask.
        documents: In `capture_order`, so that neighbours have similar lengths.
        spec: What to keep of each distribution.
        batch_tokens: Tokens a forward at the most, padding included; a longer document goes alone.
        seed: Seeds the tail samples, together with each document's tokens.
        skip: Documents already captured, from the front. Batches stay those of the whole list, for in
            bfloat16 a document's logits depend on its neighbours in the last places.
        readings: What the teacher reads instead of each document, as many loss positions in it; None means
            the documents themselves.
        beginning: What the teacher has read before each of them.
    """
    halves = split(teacher.model)
    readings = documents if readings is None else readings
    before = 0
    for batch in token_batches([len(r.tokens_T) for r in readings], batch_tokens):
        if before + len(batch) > skip:
            pairs = [(documents[i], readings[i]) for i in batch]
            heard = list(_capture_batch(halves, pairs, spec, seed, beginning))
            yield from heard[max(0, skip - before) :]
        before += len(batch)


def token_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[range]:
    """Yield consecutive documents of at most so many tokens, padding included; a longer one goes alone."""
    start = longest = 0
    for number, length in enumerate(lengths):
        longest = max(longest, length)
        if number > start and longest * (number + 1 - start) > batch_tokens:
            yield range(start, number)
            start, longest = number, length
    if lengths:
        yield range(start, len(lengths))


def hidden_states(
    halves: Halves, batch: Sequence[Ids], beginning: Beginning | None = None
) -> Iterator[Tensor]:
    """Yield the last hidden states [T, D] over each of some token sequences, read together.

    Args:
        halves: The model.
        batch: Token sequences.
        beginning: What the model has read before each of them.
    """
    width, known = max(map(len, batch)), len(beginning or ())
    tokens_BT = torch.zeros(len(batch), width, dtype=torch.long, device="cpu")
    real_BT = torch.zeros(len(batch), known + width, dtype=torch.long, device="cpu")
    for row, tokens_T in enumerate(batch):
        tokens_BT[row, : len(tokens_T)] = torch.from_numpy(tokens_T).long()
        real_BT[row, : known + len(tokens_T)] = 1
    device = halves.head.weight.device
    inputs = {} if beginning is None else {"past_key_values": beginning.cache(len(batch))}
    hidden_BTD = halves.hidden(tokens_BT.to(device), attention_mask=real_BT.to(device), **inputs)
    for row, tokens_T in enumerate(batch):
        yield hidden_BTD[row, : len(tokens_T)]


@torch.inference_mode()
def _capture_batch(
    halves: Halves,
    batch: Sequence[tuple[Document, Document]],
    spec: StoreSpec,
    seed: int,
    beginning: Beginning | None,
) -> Iterator[Taught]:
    states = hidden_states(halves, [reading.tokens_T for _, reading in batch], beginning)
    for (document, reading), hidden_TD in zip(batch, states, strict=True):
        generator = torch.Generator(device="cpu").manual_seed(seed_of(seed, document))
        hidden_ND = hidden_TD[torch.from_numpy(reading.loss_T)]
        parts = [
            sparsify(_log_probs(halves.head(tile_ND), spec.temperature), None, spec, generator)
            for tile_ND in hidden_ND.split(_HEAD_ROWS)
        ]
        yield Taught(document, concatenate(parts))


@torch.inference_mode()
def listen_densely(
    teacher: LocalModel,
    documents: Sequence[Document],
    temperature: float,
    *,
    readings: Sequence[Document] | None = None,
    beginning: Beginning | None = None,
) -> list[tuple[Document, Tensor]]:
    """Return documents with the teacher's log-probabilities [N, V] in full: a pilot for a store's budget.

    `readings` and `beginning` are those of `capture_documents`.
    """
    halves = split(teacher.model)
    heard: list[tuple[Document, Tensor]] = []
    for document, reading in zip(documents, readings or documents, strict=True):
        (hidden_TD,) = hidden_states(halves, [reading.tokens_T], beginning)
        hidden_ND = hidden_TD[torch.from_numpy(reading.loss_T)]
        heard.append((document, _log_probs(halves.head(hidden_ND), temperature).cpu()))
    return heard


def _log_probs(logits_NV: Tensor, temperature: float) -> Tensor:
    scaled_NV = logits_NV.float()
    if temperature != 1:
        scaled_NV = scaled_NV / temperature
    return scaled_NV.log_softmax(-1)


def seed_of(seed: int, document: Document) -> int:
    """Return a seed of a document's own; its key will not do, for the pieces of a cut text share one."""
    content = sha256_bytes(document.tokens_T.tobytes())
    return (seed * 0x9E3779B97F4A7C15 + int(content[:15], 16)) % 2**63


def answer_prompts(
    teacher: LocalModel,
    prompts: Sequence[Prompt],
    recipe: GenerateRecipe,
    spec: StoreSpec,
    *,
    seed: int,
    skip: int = 0,
    asked: Sequence[Ids] | None = None,
    beginning: Beginning | None = None,
) -> Iterator[Taught]:
    """Let the teacher answer prompts, and yield each answer with the distributions it was drawn from.

    Tokens are drawn at `recipe.temperature`; the targets are captured at `spec.temperature` in the same
    forward. An answer ends with the end-of-turn token or after `recipe.max_new_tokens`.

    Args:
        teacher: The model to ask.
        prompts: In a fixed order: batches are consecutive, each seeded by its index.
        recipe: Temperature, length and batch size.
        spec: What to keep of each distribution.
        seed: Seeds sampling of tokens and tails.
        skip: Prompts already answered, from the front; their batch is written again where it was cut.
        asked: What the teacher reads instead of each prompt; None means the prompts themselves.
        beginning: What the teacher has read before each of them.
    """
    read = [p.tokens_T for p in prompts] if asked is None else asked
    for start in range(skip - skip % recipe.batch, len(prompts), recipe.batch):
        cut = slice(start, start + recipe.batch)
        generator = torch.Generator(device="cpu").manual_seed(seed * 1_000_003 + start)
        taught = _answer_batch(teacher, prompts[cut], read[cut], recipe, spec, generator, beginning)
        yield from taught[max(0, skip - start) :]


@torch.inference_mode()
def _answer_batch(
    teacher: LocalModel,
    prompts: Sequence[Prompt],
    read: Sequence[Ids],
    recipe: GenerateRecipe,
    spec: StoreSpec,
    generator: torch.Generator,
    beginning: Beginning | None,
) -> list[Taught]:
    """Write the answers of one batch and keep what every token was drawn from."""
    sampling = Sampling(recipe.temperature, recipe.max_new_tokens, end_tokens(teacher))
    answers: list[list[int]] = [[] for _ in prompts]
    heard: list[SparseTargets] = []
    heard_rows: list[Tensor] = []
    for step in draw_answers(teacher.model, read, sampling, generator, beginning):
        realised = step.next_B if recipe.temperature == spec.temperature else None
        log_BV = _log_probs(step.logits_BV, spec.temperature)
        heard.append(sparsify(log_BV, realised, spec, generator))
        heard_rows.append(step.row_B)
        for row, token in zip(step.row_B.tolist(), step.next_B.tolist(), strict=True):
            answers[row].append(token)
    return _regroup(prompts, answers, heard, heard_rows)


def end_tokens(model: LocalModel) -> frozenset[int]:
    """Return the ids that end a turn: the tokenizer's end token and those of the generation settings."""
    stated = getattr(model.model.generation_config, "eos_token_id", None)
    listed = stated if isinstance(stated, list) else [stated]
    return frozenset(i for i in (*listed, model.tokenizer.eos_token_id) if i is not None)


def _regroup(
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[int]],
    heard: Sequence[SparseTargets],
    heard_rows: Sequence[Tensor],
) -> list[Taught]:
    """Turn targets in order of time into one set a document."""
    everything = concatenate(heard)
    row_N = torch.cat(list(heard_rows)).cpu().numpy()
    taught: list[Taught] = []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        mine_N = np.flatnonzero(row_N == row)
        taught.append(Taught(answered(prompt, answer), select(everything, mine_N)))
    return taught
