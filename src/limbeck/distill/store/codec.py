"""What a shard says about its positions, as symbols: one description for both directions.

Each function passes known arrays (encoding) or `None` (decoding) through a `Coder` and returns the
arrays, so that writer and reader cannot disagree about order or models. docs/store-format.md tells the
same in words.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from limbeck.distill.store.coder import Coder, Numbers
from limbeck.distill.store.tables import Followers, Frequencies, Table, uniform

ENTROPY_STEPS = 16
"""Steps per nat of the entropy's grid."""
MASS_BINS = 64
_CONTEXT_LIMIT = 8
_HEAD_STRATA = 16
_SAMPLE_STRATA = 32
_HEAD_WEIGHTS = {"head": 4, "sample": 1, "text": 2}
_SAMPLE_WEIGHTS = {"head": 1, "sample": 4, "text": 2}

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Grid:
    """The quantities that the models' shapes depend on."""

    vocabulary: int
    levels: int
    """M: probabilities are multiples of 1/M."""
    max_head: int
    tail_samples: int
    tail_weight: float | None
    """Mass that one sample stands for; None draws `tail_samples` whenever there is a tail."""

    def samples_of(self, tail_N: Numbers) -> Numbers:
        """Return how many samples a tail of so many levels gets."""
        if self.tail_weight is None:
            return np.where(tail_N > 0, self.tail_samples, 0).astype(np.int64)
        unit = max(1, round(self.tail_weight * self.levels))
        drawn = np.clip((2 * tail_N + unit) // (2 * unit), 1, self.tail_samples)
        return np.where(tail_N > 0, drawn, 0).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive documents of a shard, with everything that is coded in integers."""

    tokens_L: Numbers
    """The documents' tokens, one after the other."""
    document_L: Numbers
    """Index of the document of each token, within the shard."""
    at_N: Numbers
    """Where each loss position lies in `tokens_L`."""
    heads_N: Numbers
    """Entries in the head."""
    tail_N: Numbers
    """Mass outside the head, in levels."""
    head_ids_H: Numbers
    """Head ids of all positions, in the stored order."""
    head_mass_H: Numbers
    """Their masses, in levels; with the tail they sum to M at each position."""
    samples_N: Numbers
    """Tail samples."""
    sample_ids_S: Numbers
    """Their ids, ascending within a position."""
    entropy_N: Numbers
    """Entropy in steps of 1 / ENTROPY_STEPS nat, rounded to nearest."""


class Model:
    """Everything adaptive, in the state after the documents coded so far."""

    def __init__(self, grid: Grid) -> None:
        """Start from constants."""
        self.grid = grid
        vocabulary, heads = grid.vocabulary, grid.max_head + 1
        bins = min(MASS_BINS, grid.levels + 1)
        entropy_symbols = int(np.ceil(np.log(vocabulary) * ENTROPY_STEPS)) + 2
        self.text = Frequencies(vocabulary)
        self.heads = Table(_CONTEXT_LIMIT, heads)
        self.tails = Table(_CONTEXT_LIMIT, bins, kernel=(16, 8, 4))
        self.masses = Table(_CONTEXT_LIMIT * 8, bins, kernel=(16, 8, 4))
        self.places = Table(_CONTEXT_LIMIT * 8, heads + 1)
        self.counts = Table(_CONTEXT_LIMIT, grid.tail_samples + 1)
        self.among = Table(1, 2)
        self.entropies = Table(8 * 12, entropy_symbols, kernel=(16, 12, 6, 3))
        self.escapes = Table(4 * 12 * 6, 2)
        self.text_escapes = Table(12 * 6, 2)
        self.no_strata = Table(1, 1)
        self.head_strata = Table(3, _HEAD_STRATA)
        self.sample_strata = Table(
            _CONTEXT_LIMIT * _CONTEXT_LIMIT, _SAMPLE_STRATA, kernel=(16, 8, 4)
        )
        self.head_followers = Followers(vocabulary)
        self.sample_followers = Followers(vocabulary)
        self.head_frequencies = Frequencies(vocabulary)
        self.sample_frequencies = Frequencies(vocabulary)


def code_block(coder: Coder, model: Model, shape: Block, known: Block | None) -> Block:
    """Pass one block through the coder and let the model learn from it.

    Args:
        coder: Either direction.
        model: Advanced in place.
        shape: Its `document_L` and `at_N` are read in both directions.
        known: The block, when encoding.
    """
    tokens_L = _tokens(
        coder, model, len(shape.document_L), None if known is None else known.tokens_L
    )
    model.text.learn(tokens_L, 32)
    context_N = tokens_L[shape.at_N]
    block = replace(shape, tokens_L=tokens_L)
    block = _masses(coder, model, block, known, context_N)
    place_N = _places(coder, model, block, known)
    block = _head_ids(coder, model, block, known, place_N)
    block = _samples(coder, model, block, known, place_N)
    block = _entropies(coder, model, block, known)
    _learn(model, block)
    return block


def _tokens(coder: Coder, model: Model, length: int, tokens_L: Numbers | None) -> Numbers:
    """Code a block's tokens: every other one by its frequency, then those between, given the one before."""
    found_L = np.zeros(length, dtype=np.int64)
    for parity in (0, 1):
        at = np.arange(parity, length, 2)
        ids = None if tokens_L is None else tokens_L[at]
        far = np.ones(len(at), dtype=np.bool_)
        if parity:
            context = found_L[at - 1]
            _, total, distinct = model.head_followers.rows(context)
            known = None if ids is None else model.head_followers.place(context, ids)[0]
            possible = np.flatnonzero(total)
            kind = np.minimum(_log2(distinct, 11), 11) * 6
            kind += np.minimum(_log2(total // np.maximum(distinct, 1), 6), 5)
            seen = model.text_escapes.code(
                coder,
                "tokens",
                kind[possible],
                None if known is None else known[possible].astype(np.int64),
            )
            far[possible[seen > 0]] = False
            near = np.flatnonzero(~far)
            found_L[at[near]] = model.head_followers.code(
                coder, "tokens", context[near], None if ids is None else ids[near]
            )
        found_L[at[far]] = model.text.code(
            coder,
            "tokens",
            None if ids is None else ids[far],
            model.no_strata,
            np.zeros(int(far.sum()), dtype=np.int64),
        )
    return found_L


def _masses(
    coder: Coder, model: Model, block: Block, known: Block | None, context_N: Numbers
) -> Block:
    levels = model.grid.levels
    _, _, followers_N = model.head_followers.rows(context_N)
    heads_N = model.heads.code(
        coder, "head counts", _log2(followers_N, 7), None if known is None else known.heads_N
    )
    few_N = np.minimum(heads_N, _CONTEXT_LIMIT - 1)
    tail_N = np.full(len(heads_N), levels, dtype=np.int64)
    some = np.flatnonzero(heads_N)
    room = np.full(len(some), levels + 1, dtype=np.int64)
    tail_N[some] = _number(
        coder,
        model.tails,
        "masses",
        few_N[some],
        room,
        None if known is None else known.tail_N[some],
    )
    starts_N = np.cumsum(heads_N) - heads_N
    mass_H = np.zeros(int(heads_N.sum()), dtype=np.int64)
    left_N = levels - tail_N
    before_N = left_N.copy()
    for k in range(int(heads_N.max(initial=0)) - 1):
        more = np.flatnonzero(heads_N > k + 1)
        entry = starts_N[more] + k
        slots = np.minimum(heads_N[more] - k, _CONTEXT_LIMIT) - 1
        room = np.minimum(before_N[more] + 1, left_N[more]) + 1
        context = slots * 8 + np.minimum(8 * room // (left_N[more] + 2), 7)
        mass = _number(
            coder,
            model.masses,
            "masses",
            context,
            room,
            None if known is None else known.head_mass_H[entry],
        )
        mass_H[entry] = mass
        left_N[more] -= mass
        before_N[more] = mass
    mass_H[(starts_N + heads_N - 1)[some]] = left_N[some]
    return replace(block, heads_N=heads_N, tail_N=tail_N, head_mass_H=mass_H)


def _number(
    coder: Coder,
    table: Table,
    label: str,
    context_N: Numbers,
    room_N: Numbers,
    values_N: Numbers | None,
) -> Numbers:
    """Code numbers in `[0, room)`: which of the table's equal bins, then where in the bin."""
    bins = table.symbols
    bin_N = table.code(
        coder, label, context_N, None if values_N is None else values_N * bins // room_N
    )
    low_N = -(-bin_N * room_N // bins)
    size_N = -(-(bin_N + 1) * room_N // bins) - low_N
    rest_N = uniform(coder, label, size_N, None if values_N is None else values_N - low_N)
    return low_N + rest_N


def _places(coder: Coder, model: Model, block: Block, known: Block | None) -> Numbers:
    """Code where in the head the token lies that came next in the text; `heads_N` says nowhere."""
    next_N = block.tokens_L[block.at_N + 1]
    place_N = None
    if known is not None:
        owner_H = np.repeat(np.arange(len(known.heads_N)), known.heads_N)
        place_N = known.heads_N.copy()
        hit = np.flatnonzero(known.head_ids_H == next_N[owner_H])
        starts_N = np.cumsum(known.heads_N) - known.heads_N
        place_N[owner_H[hit]] = hit - starts_N[owner_H[hit]]
    few_N = np.minimum(block.heads_N, _CONTEXT_LIMIT - 1)
    return model.places.code(coder, "places", few_N * 8 + _first_mass(model, block), place_N)


def _first_mass(model: Model, block: Block) -> Numbers:
    """Return the first head entry's mass in eighths of 1, 0 to 7."""
    starts_N = np.cumsum(block.heads_N) - block.heads_N
    first_N = np.zeros(len(block.heads_N), dtype=np.int64)
    some = block.heads_N > 0
    first_N[some] = block.head_mass_H[starts_N[some]]
    return np.minimum(8 * first_N // model.grid.levels, 7)


def _head_ids(
    coder: Coder, model: Model, block: Block, known: Block | None, place_N: Numbers
) -> Block:
    heads_N = block.heads_N
    owner_H = np.repeat(np.arange(len(heads_N)), heads_N)
    rank_H = np.arange(len(owner_H)) - (np.cumsum(heads_N) - heads_N)[owner_H]
    here_H = rank_H == place_N[owner_H]
    ids_H = np.zeros(len(owner_H), dtype=np.int64)
    ids_H[here_H] = block.tokens_L[block.at_N[owner_H[here_H]] + 1]
    other = np.flatnonzero(~here_H)
    ids_H[other] = _ids(
        coder,
        model,
        "head ids",
        np.minimum(rank_H[other], 2),
        np.minimum(rank_H[other], 2),
        block.at_N[owner_H[other]],
        block,
        None if known is None else known.head_ids_H[other],
    )
    return replace(block, head_ids_H=ids_H)


def _samples(
    coder: Coder, model: Model, block: Block, known: Block | None, place_N: Numbers
) -> Block:
    ruled_N = model.grid.samples_of(block.tail_N)
    asked = np.flatnonzero(block.tail_N > 0)
    samples_N = np.zeros(len(ruled_N), dtype=np.int64)
    # A symbol of 0 says "as the rule has it", so that a store of one make pays nothing for it.
    wrap = model.grid.tail_samples + 1
    shift = None if known is None else (known.samples_N[asked] - ruled_N[asked]) % wrap
    zero = np.zeros(len(asked), dtype=np.int64)
    samples_N[asked] = (
        ruled_N[asked] + model.counts.code(coder, "sample counts", zero, shift)
    ) % wrap
    next_N = block.tokens_L[block.at_N + 1]
    free = np.flatnonzero((samples_N > 0) & (place_N == block.heads_N))
    hit = None if known is None else _first_equal(known.samples_N, known.sample_ids_S, next_N)
    has_N = np.zeros(len(samples_N), dtype=np.int64)
    flags = None if hit is None else (hit[free] >= 0).astype(np.int64)
    has_N[free] = model.among.code(coder, "places", np.zeros(len(free), dtype=np.int64), flags)
    rest_N = samples_N - has_N
    owner_R = np.repeat(np.arange(len(rest_N)), rest_N)
    rest = None
    if known is not None and hit is not None:
        kept_S = np.ones(len(known.sample_ids_S), dtype=np.bool_)
        kept_S[hit[has_N > 0]] = False
        rest = known.sample_ids_S[kept_S]
    few_N = np.minimum(rest_N, _CONTEXT_LIMIT) - 1
    rank_R = np.arange(len(owner_R)) - (np.cumsum(rest_N) - rest_N)[owner_R]
    stratum_R = few_N[owner_R] * _CONTEXT_LIMIT + np.minimum(rank_R, _CONTEXT_LIMIT - 1)
    rest = _ids(
        coder,
        model,
        "sample ids",
        np.full(len(owner_R), 3),
        stratum_R,
        block.at_N[owner_R],
        block,
        rest,
    )
    owner_S = np.concatenate([owner_R, np.flatnonzero(has_N)])
    ids_S = np.concatenate([rest, next_N[has_N > 0]])
    order = np.lexsort((ids_S, owner_S))
    return replace(block, samples_N=samples_N, sample_ids_S=ids_S[order])


def _first_equal(counts_N: Numbers, ids_E: Numbers, wanted_N: Numbers) -> Numbers:
    """Return the index of the first entry of each position that equals its wanted id, or -1."""
    owner_E = np.repeat(np.arange(len(counts_N)), counts_N)
    hits = np.flatnonzero(ids_E == wanted_N[owner_E])[::-1]
    first_N = np.full(len(counts_N), -1, dtype=np.int64)
    first_N[owner_E[hits]] = hits
    return first_N


def _ids(
    coder: Coder,
    model: Model,
    label: str,
    kind_E: Numbers,
    stratum_E: Numbers,
    at_E: Numbers,
    block: Block,
    ids_E: Numbers | None,
) -> Numbers:
    """Code token ids: among those seen after the same token, else anywhere in the document, else any."""
    sampled = label == "sample ids"
    followers = model.sample_followers if sampled else model.head_followers
    context_E = block.tokens_L[at_E]
    _, total_E, distinct_E = followers.rows(context_E)
    kind = kind_E * 72 + np.minimum(_log2(distinct_E, 11), 11) * 6
    kind += np.minimum(_log2(total_E // np.maximum(distinct_E, 1), 6), 5)
    found_E = np.zeros(len(at_E), dtype=np.int64)
    known_E = None if ids_E is None else followers.place(context_E, ids_E)[0].astype(np.int64)
    possible = np.flatnonzero(total_E)
    seen_E = np.zeros(len(at_E), dtype=np.int64)
    seen_E[possible] = model.escapes.code(
        coder, label, kind[possible], None if known_E is None else known_E[possible]
    )
    near = np.flatnonzero(seen_E)
    found_E[near] = followers.code(
        coder, label, context_E[near], None if ids_E is None else ids_E[near]
    )
    far = np.flatnonzero(seen_E == 0)
    frequencies = model.sample_frequencies if sampled else model.head_frequencies
    found_E[far] = frequencies.code(
        coder,
        label,
        None if ids_E is None else ids_E[far],
        model.sample_strata if sampled else model.head_strata,
        stratum_E[far],
    )
    return found_E


def _entropies(coder: Coder, model: Model, block: Block, known: Block | None) -> Block:
    tail_N = np.minimum(12 * block.tail_N // model.grid.levels, 11)
    context_N = tail_N * 8 + _first_mass(model, block)
    entropy_N = model.entropies.code(
        coder, "entropy", context_N, None if known is None else known.entropy_N
    )
    return replace(block, entropy_N=entropy_N)


def _learn(model: Model, block: Block) -> None:
    context_N = block.tokens_L[block.at_N]
    head_H = np.repeat(context_N, block.heads_N)
    sample_S = np.repeat(context_N, block.samples_N)
    same = block.document_L[1:] == block.document_L[:-1]
    keys = {
        "head": head_H * model.grid.vocabulary + block.head_ids_H,
        "sample": sample_S * model.grid.vocabulary + block.sample_ids_S,
        "text": (block.tokens_L[:-1] * model.grid.vocabulary + block.tokens_L[1:])[same],
    }
    for followers, frequencies, weights in (
        (model.head_followers, model.head_frequencies, _HEAD_WEIGHTS),
        (model.sample_followers, model.sample_frequencies, _SAMPLE_WEIGHTS),
    ):
        every = np.concatenate(list(keys.values()))
        amount = np.concatenate([np.full(len(k), weights[name]) for name, k in keys.items()])
        followers.learn(every, amount)
        for name, found in keys.items():
            frequencies.learn(found % model.grid.vocabulary, weights[name] * 8)


def _log2(counts_N: Numbers, limit: int) -> Numbers:
    """Return the number of binary digits, at most `limit`; exact, unlike a floating-point logarithm."""
    return np.minimum(np.searchsorted(1 << np.arange(limit), counts_N, side="right"), limit).astype(
        np.int64
    )
