"""Adaptive integer models of symbols, each of which codes a batch and then learns from it.

Within a batch the counts are frozen, so that a whole batch is coded by a few vectorised calls; they
grow afterwards. Every count is an integer and starts from a constant, so the models need no bytes in
the store and are the same on every machine.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from limbeck.distill.store.coder import MAX_TOTAL, Coder, Interval, Numbers

_TABLE_LIMIT = 1 << 16


class Table:
    """Symbols 0..S-1 in one of C contexts: dense counts [C, S]."""

    def __init__(self, contexts: int, symbols: int, *, kernel: tuple[int, ...] = (32,)) -> None:
        """Start uniform.

        Args:
            contexts: C.
            symbols: S.
            kernel: What an observation adds to its symbol and, on both sides, to neighbours at
                distance 1, 2, ...; more than one number says that symbols are ordered.
        """
        self._counts_CS = np.ones((contexts, symbols), dtype=np.int64)
        self._kernel = kernel

    @property
    def symbols(self) -> int:
        """S."""
        return self._counts_CS.shape[1]

    def code(
        self, coder: Coder, label: str, context_N: Numbers, symbols_N: Numbers | None
    ) -> Numbers:
        """Code N symbols, each in its context, then learn from them."""
        symbol_count = self._counts_CS.shape[1]
        ends = np.cumsum(self._counts_CS.ravel())
        starts = ends - self._counts_CS.ravel()
        base_N = starts[context_N * symbol_count]
        total_N = self._counts_CS.sum(axis=1)[context_N]

        def find(codes: Numbers, piece: slice) -> tuple[Numbers, Numbers, Numbers]:
            base = base_N[piece]
            place = np.searchsorted(ends, codes + base, side="right")
            freq = ends[place] - starts[place]
            return place - context_N[piece] * symbol_count, starts[place] - base, freq

        known = None
        if symbols_N is not None:
            place = context_N * symbol_count + symbols_N
            known = (starts[place] - base_N, ends[place] - starts[place])
        found_N = coder.code(label, total_N, find, known, symbols_N)
        self._learn(context_N, found_N)
        return found_N

    def _learn(self, context_N: Numbers, symbols_N: Numbers) -> None:
        contexts, symbols = self._counts_CS.shape
        seen = np.bincount(context_N * symbols + symbols_N, minlength=contexts * symbols)
        seen_CS = seen.reshape(contexts, symbols)
        self._counts_CS += self._kernel[0] * seen_CS
        for distance, weight in enumerate(self._kernel[1:], start=1):
            self._counts_CS[:, distance:] += weight * seen_CS[:, :-distance]
            self._counts_CS[:, :-distance] += weight * seen_CS[:, distance:]
        while (crowded := self._counts_CS.sum(axis=1) > _TABLE_LIMIT).any():
            self._counts_CS[crowded] = (self._counts_CS[crowded] + 1) // 2


def uniform(coder: Coder, label: str, sizes_N: Numbers, symbols_N: Numbers | None) -> Numbers:
    """Code N symbols, each equally likely below its size."""
    one = np.ones(len(sizes_N), dtype=np.int64)
    known = None if symbols_N is None else (symbols_N, one)
    return coder.code(
        label, sizes_N, lambda codes, piece: (codes, codes, one[piece]), known, symbols_N
    )


class Frequencies:
    """Token ids by how often they came up, over the whole vocabulary."""

    def __init__(self, vocabulary: int) -> None:
        """Start with the guess that low ids are common, as byte-pair merges are ordered by frequency."""
        ids = np.arange(vocabulary, dtype=np.int64)
        self._counts_V = 1 + (4 * vocabulary) // (ids + 1024)

    def code(
        self,
        coder: Coder,
        label: str,
        ids_N: Numbers | None,
        strata: Table,
        context_N: Numbers,
    ) -> Numbers:
        """Code N token ids: first which stratum of about equal mass, in context, then which id there.

        Args:
            coder: Either direction.
            label: What the bits are for.
            ids_N: The ids, when encoding.
            strata: One symbol a stratum; 1 symbol makes this a plain frequency model.
            context_N: Contexts of `strata`.
        """
        ends = np.cumsum(self._counts_V)
        marks = np.arange(1, strata.symbols) * int(ends[-1]) // strata.symbols
        edges = np.concatenate([[0], np.searchsorted(ends, marks, side="right"), [len(ends)]])
        before = np.concatenate([[0], ends])[edges]
        stratum_N = None if ids_N is None else np.searchsorted(edges, ids_N, side="right") - 1
        if strata.symbols > 1:
            stratum_N = strata.code(coder, label, context_N, stratum_N)
        else:
            stratum_N = np.zeros(len(context_N), dtype=np.int64)
        base_N = before[stratum_N]

        def find(codes: Numbers, piece: slice) -> tuple[Numbers, Numbers, Numbers]:
            base = base_N[piece]
            ids = np.searchsorted(ends, codes + base, side="right")
            return ids, ends[ids] - self._counts_V[ids] - base, self._counts_V[ids]

        known = None
        if ids_N is not None:
            known = (ends[ids_N] - self._counts_V[ids_N] - base_N, self._counts_V[ids_N])
        return coder.code(label, before[stratum_N + 1] - base_N, find, known, ids_N)

    def learn(self, ids_N: Numbers, weight: int) -> None:
        """Count tokens, each `weight` times."""
        self._counts_V += weight * np.bincount(ids_N, minlength=len(self._counts_V))
        while self._counts_V.sum() > MAX_TOTAL:
            self._counts_V = (self._counts_V + 1) // 2


@dataclass(slots=True)
class Followers:
    """Token ids that came up in a context (the token before, a document), as a sparse table.

    A code exists only for a token that the context has seen; `seen` tells, and the codec writes an escape
    for the rest.
    """

    vocabulary: int
    keys_K: Numbers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Sorted `context * vocabulary + token`."""
    counts_K: Numbers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """How often, weighted; above 0."""
    ends_K1: Numbers = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    """0, then the running sum of the counts."""

    def rows(self, context_N: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Return (sum before the context's first key, sum of its counts, number of its keys)."""
        low = np.searchsorted(self.keys_K, context_N * self.vocabulary)
        high = np.searchsorted(self.keys_K, (context_N + 1) * self.vocabulary)
        base = self.ends_K1[low]
        return base, self.ends_K1[high] - base, high - low

    def place(self, context_N: Numbers, ids_N: Numbers) -> tuple[npt.NDArray[np.bool_], Numbers]:
        """Return whether each (context, token) has been seen, and where its key lies."""
        keys = context_N * self.vocabulary + ids_N
        place = np.searchsorted(self.keys_K, keys)
        inside = place < len(self.keys_K)
        seen = inside.copy()
        seen[inside] = self.keys_K[place[inside]] == keys[inside]
        return seen, place

    def code(self, coder: Coder, label: str, context_N: Numbers, ids_N: Numbers | None) -> Numbers:
        """Code N tokens, each of which its context has seen."""
        base_N, total_N, _ = self.rows(context_N)

        def find(codes: Numbers, piece: slice) -> tuple[Numbers, Numbers, Numbers]:
            base = base_N[piece]
            place = np.searchsorted(self.ends_K1, codes + base, side="right") - 1
            start = self.ends_K1[place] - base
            return self.keys_K[place] % self.vocabulary, start, self.counts_K[place]

        known: Interval | None = None
        if ids_N is not None:
            _, place = self.place(context_N, ids_N)
            known = (self.ends_K1[place] - base_N, self.counts_K[place])
        return coder.code(label, total_N, find, known, ids_N)

    def learn(self, keys: Numbers, weights: Numbers) -> None:
        """Add weights to keys (`context * vocabulary + token`), new ones included."""
        fresh, inverse = np.unique(keys, return_inverse=True)
        amounts = np.zeros(len(fresh), dtype=np.int64)
        np.add.at(amounts, inverse, weights)
        place = np.searchsorted(self.keys_K, fresh)
        old = np.zeros(len(fresh), dtype=np.bool_)
        inside = np.flatnonzero(place < len(self.keys_K))
        old[inside] = self.keys_K[place[inside]] == fresh[inside]
        counts = self.counts_K.copy()
        counts[place[old]] += amounts[old]
        self.keys_K = np.insert(self.keys_K, place[~old], fresh[~old])
        counts = np.insert(counts, place[~old], amounts[~old])
        while _longest_row(self.keys_K // self.vocabulary, counts) > MAX_TOTAL:
            counts = (counts + 1) // 2
        self.counts_K = counts
        self.ends_K1 = np.concatenate([[0], np.cumsum(counts)])


def _longest_row(context_K: Numbers, counts_K: Numbers) -> int:
    if not len(context_K):
        return 0
    first = np.flatnonzero(np.diff(context_K, prepend=-1))
    return int(np.add.reduceat(counts_K, first).max())
