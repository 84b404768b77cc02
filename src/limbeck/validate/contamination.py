"""Which test items occur in the training text: as they are, in part, or nearly.

Text is compared as symbols: lower-case words, single digits, and every other mark by itself, so that white space and
case do not matter and formulas count. An item is found

- *exact*: its symbols stand, in that order, somewhere in the training text;
- *13-gram*: it shares 13 symbols in a row with the training text (the length of GPT-3's check, Brown et al.,
  arXiv 2005.14165, appendix C);
- *near*: a passage of the training text has at least half of the item's 5-symbol shingles in common with it (Jaccard
  0.5; candidates come from MinHash, Broder 1997, and are then counted exactly).

What most items of a task share is the task's template and no evidence: such 13-grams and shingles are left out. The items are
indexed, and the training text streams by once, so that it may be larger than memory.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

GRAM = 13
SHINGLE = 5
NEAR = 0.5
"""Jaccard similarity of shingles from which on a passage is a near copy."""
_SYMBOL = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
_PASSAGE = re.compile(r"\n\s*\n|<\|[^|\n]{1,32}\|>")
_TEMPLATE_SHARE = 0.5
_TEMPLATE_ITEMS = 4
"""Fewer items than this have no template that could be told from content."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_BANDS, _ROWS = 32, 4
"""A pair of similarity s becomes a candidate with probability 1 - (1 - s^4)^32: 0.87 at 0.5, 0.99 at 0.6."""
_SALTS = np.random.default_rng(11).integers(1, 2**63, _BANDS * _ROWS, dtype=np.uint64) | np.uint64(
    1
)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How one item occurs in the training text."""

    exact: bool = False
    gram: bool = False
    near: bool = False
    where: str | None = None
    """First training document in which it was found."""

    @property
    def found(self) -> bool:
        """Whether it occurs at all."""
        return self.exact or self.gram or self.near


@dataclass(slots=True)
class _Index:
    """The items in hashed form."""

    symbols: list[Hashes]
    grams: dict[int, list[int]]
    known_grams: Hashes
    """Sorted, for a quick look whether any gram of a document is known."""
    wholes: dict[int, dict[int, list[int]]]
    """Length in symbols -> hash of all of them -> items."""
    short: set[int]
    """Lengths of items that hold no gram of their own."""
    shingles: list[Hashes]
    """Sorted, of each item, without the template's."""
    template: Hashes
    """Shingles that most items share."""
    bands: dict[tuple[int, int], list[int]]
    found: list[Overlap] = field(default_factory=list[Overlap])


def find_overlaps(items: Sequence[str], training: Iterable[tuple[str, str]]) -> list[Overlap]:
    """Return for each item of one task how it occurs in the training text.

    Args:
        items: What a model is asked, one text an item.
        training: (name, text) of every training document.
    """
    index = _indexed(items)
    for name, text in training:
        _look(index, name, text)
    return index.found


def symbols(text: str) -> list[str]:
    """Return a text as symbols."""
    return _SYMBOL.findall(text.lower())


def _hashed(text: str) -> Hashes:
    return np.array([zlib.crc32(s.encode()) for s in symbols(text)], dtype=np.uint64)


def _windows(symbol_N: Hashes, length: int) -> Hashes:
    """Return a hash of every `length` symbols in a row; empty where there are fewer."""
    count = len(symbol_N) - length + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    hashes = np.zeros(count, dtype=np.uint64)
    for k in range(length):
        hashes = hashes * _BASE + symbol_N[k : k + count]
    # Sums of products alone would let near values collide in the low bits.
    return _mixed(hashes)


def _mixed(hashes: Hashes) -> Hashes:
    hashes = (hashes ^ (hashes >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return hashes ^ (hashes >> np.uint64(29))


def _indexed(items: Sequence[str]) -> _Index:
    symbol_lists = [_hashed(text) for text in items]
    grams: dict[int, list[int]] = {}
    wholes: dict[int, dict[int, list[int]]] = {}
    bands: dict[tuple[int, int], list[int]] = {}
    shingles: list[Hashes] = []
    for i, symbol_N in enumerate(symbol_lists):
        for gram in np.unique(_windows(symbol_N, GRAM)).tolist():
            grams.setdefault(gram, []).append(i)
        if len(symbol_N):
            whole = int(_windows(symbol_N, len(symbol_N))[0])
            wholes.setdefault(len(symbol_N), {}).setdefault(whole, []).append(i)
        shingles.append(np.unique(_windows(symbol_N, SHINGLE)))
    template = _shared_by_most(shingles)
    shingles = [np.setdiff1d(mine, template, assume_unique=True) for mine in shingles]
    for i, mine in enumerate(shingles):
        for key in _band_keys(mine):
            bands.setdefault(key, []).append(i)
    if len(items) >= _TEMPLATE_ITEMS:
        grams = {g: who for g, who in grams.items() if len(who) < _TEMPLATE_SHARE * len(items)}
    known = np.array(sorted(grams), dtype=np.uint64)
    with_grams = {i for who in grams.values() for i in who}
    short = {len(s) for i, s in enumerate(symbol_lists) if len(s) and i not in with_grams}
    found = [Overlap() for _ in items]
    return _Index(symbol_lists, grams, known, wholes, short, shingles, template, bands, found)


def _shared_by_most(shingles: Sequence[Hashes]) -> Hashes:
    if len(shingles) < _TEMPLATE_ITEMS:
        return np.empty(0, dtype=np.uint64)
    known, counts = np.unique(np.concatenate(shingles), return_counts=True)
    return known[counts >= _TEMPLATE_SHARE * len(shingles)]


def _band_keys(shingle_S: Hashes) -> Iterator[tuple[int, int]]:
    if not len(shingle_S):
        return
    lowest = _mixed(shingle_S[None, :] * _SALTS[:, None]).min(1).reshape(_BANDS, _ROWS)
    for band, row in enumerate(lowest):
        yield band, hash(tuple(row.tolist()))


def _look(index: _Index, name: str, text: str) -> None:
    """Note what one training document holds of any item."""
    symbol_N = _hashed(text)
    gram_N = _windows(symbol_N, GRAM)
    hit = {
        i for gram in gram_N[np.isin(gram_N, index.known_grams)].tolist() for i in index.grams[gram]
    }
    for i in hit:
        _note(index, i, name, gram=True)
    # An item as a whole is looked for where a part of it was seen, or where it is too short to have a part.
    lengths = {len(index.symbols[i]) for i in hit} | index.short
    for length in lengths:
        hashes = _windows(symbol_N, length)
        for whole in hashes[np.isin(hashes, np.array(list(index.wholes[length]), dtype=np.uint64))]:
            for i in index.wholes[length][int(whole)]:
                _note(index, i, name, exact=True)
    for passage in _PASSAGE.split(text):
        _look_near(index, name, passage)


def _look_near(index: _Index, name: str, passage: str) -> None:
    shingle_S = np.unique(_windows(_hashed(passage), SHINGLE))
    shingle_S = np.setdiff1d(shingle_S, index.template, assume_unique=True)
    candidates = {i for key in _band_keys(shingle_S) for i in index.bands.get(key, ())}
    for i in candidates:
        both = len(np.intersect1d(index.shingles[i], shingle_S, assume_unique=True))
        if both >= NEAR * (len(index.shingles[i]) + len(shingle_S) - both):
            _note(index, i, name, near=True)


def _note(
    index: _Index,
    i: int,
    name: str,
    *,
    exact: bool = False,
    gram: bool = False,
    near: bool = False,
) -> None:
    before = index.found[i]
    index.found[i] = Overlap(
        exact=before.exact or exact,
        gram=before.gram or gram,
        near=before.near or near,
        where=before.where or name,
    )


def summary(overlaps: Sequence[Overlap]) -> dict[str, Any]:
    """Return how many items were found in each way, as JSON values."""
    return {
        "items": len(overlaps),
        "exact": sum(o.exact for o in overlaps),
        "gram13": sum(o.gram for o in overlaps),
        "near": sum(o.near for o in overlaps),
        "found": sum(o.found for o in overlaps),
    }
