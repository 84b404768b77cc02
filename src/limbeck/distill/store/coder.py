"""The entropy coder: integer intervals onto one stack of 32-bit words.

A symbol is coded as an interval `[start, start + freq)` of `[0, total)` and costs `log2(total / freq)`
bits. `constriction`'s ANS coder knows uniform distributions exactly, so an interval is written with the
bits-back step: take a number below `freq` *off* the stack, add `start`, put the sum back as one of
`total`. Only integers decide, so every machine decodes the same. Symbols go through in batches; a batch
takes its bits before it gives any, so a batch begins with large pieces and ends with small ones, which
bounds what the very first write takes from an empty stack.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
from constriction import (
    stream,  # pyright: ignore[reportAttributeAccessIssue] - a native module without stubs
)

from limbeck.errors import StoreError

Numbers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]
Interval = tuple[Numbers, Numbers]
Find = Callable[[Numbers, slice], tuple[Numbers, Numbers, Numbers]]

MAX_TOTAL = 1 << 23
"""Largest `total`; the uniform model of the coder allows fewer than 2**24 symbols."""
_SMALLEST_PIECE = 16
_LARGEST_PIECE = 4096


class Coder(Protocol):
    """Either direction of the codec, so that encoding and decoding share one description."""

    def code(
        self,
        label: str,
        total: Numbers,
        find: Find,
        known: Interval | None,
        symbols: Numbers | None,
    ) -> Numbers:
        """Pass a batch of symbols and return them.

        Args:
            label: What the bits are for, in the accounting.
            total: Size of each symbol's range, in [1, MAX_TOTAL].
            find: Maps codes `[0, total)` of a slice of the batch to (symbol, start, freq).
            known: (start, freq) of each symbol, when encoding.
            symbols: The symbols, when encoding.
        """
        ...


class Stack(Protocol):
    """What is used of `constriction.stream.stack.AnsCoder`."""

    def decode(self, model: object, sizes: npt.NDArray[np.int32], /) -> npt.NDArray[np.int32]:
        """Take a number below each size off the stack."""
        ...

    def encode_reverse(
        self, codes: npt.NDArray[np.int32], model: object, sizes: npt.NDArray[np.int32], /
    ) -> None:
        """Put numbers onto the stack, last first."""
        ...

    def get_compressed(self) -> Words:
        """Return the words on the stack."""
        ...

    def is_empty(self) -> bool:
        """Tell whether nothing is left."""
        ...


def pieces(length: int) -> list[slice]:
    """Cut a batch into slices, in decoding order: 4096 as often as fits, then halves down to 16."""
    sizes: list[int] = []
    size, left = _SMALLEST_PIECE, length
    while left > 0:
        sizes.append(min(size, left))
        left -= sizes[-1]
        size = min(2 * size, _LARGEST_PIECE)
    ends = np.cumsum(sizes[::-1]).tolist()
    return [slice(end - size, end) for size, end in zip(sizes[::-1], ends, strict=True)]


class Encoder:
    """Collects intervals in decoding order; `finish` writes them, last first."""

    def __init__(self) -> None:
        """Start with nothing collected."""
        self._batches: list[tuple[Numbers, Numbers, Numbers]] = []
        self.bits: dict[str, float] = {}
        """Ideal bits per label."""

    def code(
        self,
        label: str,
        total: Numbers,
        find: Find,
        known: Interval | None,
        symbols: Numbers | None,
    ) -> Numbers:
        """Collect a batch; see `Coder.code`."""
        assert known is not None  # noqa: S101 - the codec passes both or neither
        assert symbols is not None  # noqa: S101
        start, freq = known
        if len(total):
            self._batches.append((start, freq, total))
            cost = float(np.log2(total / freq).sum())
            self.bits[label] = self.bits.get(label, 0.0) + cost
        return symbols

    def finish(self) -> Words:
        """Return the words of everything collected."""
        stack: Stack = stream.stack.AnsCoder()
        for start, freq, total in reversed(self._batches):
            for piece in reversed(pieces(len(total))):
                _give(stack, start[piece] + _take(stack, freq[piece]), total[piece])
        return np.asarray(stack.get_compressed(), dtype=np.uint32)


class Decoder:
    """Reads batches in the order in which they were collected."""

    def __init__(self, words: Words) -> None:
        """Start at the top of the stack."""
        self._stack: Stack = stream.stack.AnsCoder(words)

    def code(
        self,
        label: str,
        total: Numbers,
        find: Find,
        known: Interval | None,
        symbols: Numbers | None,
    ) -> Numbers:
        """Read a batch; see `Coder.code`."""
        found = np.zeros(len(total), dtype=np.int64)
        for piece in pieces(len(total)):
            codes = _take(self._stack, total[piece])
            found[piece], start, freq = find(codes, piece)
            _give(self._stack, codes - start, freq)
        return found

    def finish(self) -> None:
        """Check that the stack has been used up, as it must be after the last batch."""
        if not self._stack.is_empty():
            raise StoreError("the entropy-coded part does not end where its header says")


_UNIFORM = stream.model.Uniform()


def _take(stack: Stack, sizes: Numbers) -> Numbers:
    """Take a number below each size off the stack; a size of 1 takes nothing."""
    taken = np.zeros(len(sizes), dtype=np.int64)
    where = np.flatnonzero(sizes > 1)
    if len(where):
        taken[where] = stack.decode(_UNIFORM, np.ascontiguousarray(sizes[where], dtype=np.int32))
    return taken


def _give(stack: Stack, codes: Numbers, sizes: Numbers) -> None:
    """Put numbers below their sizes onto the stack, last first."""
    where = np.flatnonzero(sizes > 1)
    if len(where):
        stack.encode_reverse(
            np.ascontiguousarray(codes[where], dtype=np.int32),
            _UNIFORM,
            np.ascontiguousarray(sizes[where], dtype=np.int32),
        )
