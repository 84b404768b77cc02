"""The Merkle tree of RFC 6962: hashes, roots, proofs and their verification; pure functions and one frontier.

A tree over n leaves is the tree over the first k, k the largest power of two below n, beside the tree over the rest.
A leaf is hashed with the byte 0 in front and a pair of nodes with the byte 1, so neither can pose as the other. *Complete
subtrees*, 2^level leaves that begin at a multiple of 2^level, never change as the tree grows; every proof is made of
them, so whoever keeps some of them can prove without reading all leaves.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

Subtree = Callable[[int, int], bytes]
"""(level, place) to the hash of the complete subtree over leaves place * 2^level up to (place + 1) * 2^level."""

EMPTY_ROOT = hashlib.sha256(b"").digest()
KEPT_LEVELS = 8
"""A frontier reports complete subtrees at every 8th level: a proof then hashes at most 256 nodes a level again."""

_sha256 = hashlib.sha256


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf's bytes, 32 bytes."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node with these two children, 32 bytes."""
    return _sha256(b"\x01" + left + right).digest()


class Frontier:
    """The growing edge of one tree: its size and the roots of its complete subtrees, O(log n) memory."""

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        """Go on from a tree of `size` leaves; its peaks are given from left to right, one for each bit of size.

        Raises:
            ValueError: Another number of peaks than size has bits.
        """
        self.size = size
        self._peaks = list(peaks)
        if len(self._peaks) != size.bit_count():
            raise ValueError(
                f"a tree of {size} leaves has {size.bit_count()} peaks, got {len(self._peaks)}"
            )

    def copy(self) -> "Frontier":
        """Return an independent frontier of the same tree."""
        return Frontier(self.size, self._peaks)

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf's hash; return the (level, place, hash) that it completed at every `KEPT_LEVELS`th level."""
        peaks, place, level, kept = self._peaks, self.size, 0, []
        self.size += 1
        while place & 1:
            leaf = _sha256(b"\x01" + peaks.pop() + leaf).digest()
            place >>= 1
            level += 1
            if not level % KEPT_LEVELS:
                kept.append((level, place, leaf))
        peaks.append(leaf)
        return kept

    def root(self) -> bytes:
        """Return the root over all leaves so far, 32 bytes."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def peaks(size: int) -> list[tuple[int, int]]:
    """Return the (level, place) of the complete subtrees that make up a tree of `size` leaves, left to right."""
    found, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found.append((level, start >> level))
            start += 1 << level
    return found


def root(leaves: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes, 32 bytes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def over(leaves: Sequence[bytes]) -> Subtree:
    """Return the complete subtrees of a tree whose leaf hashes are all at hand."""

    def subtree(level: int, place: int) -> bytes:
        return root(leaves[place << level : (place + 1) << level])

    return subtree


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return the path that shows leaf `index` in the tree of `size` leaves (RFC 6962, section 2.1.1).

    Raises:
        ValueError: Not 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range_root(middle, high, subtree))
            high = middle
        else:
            path.append(_range_root(low, middle, subtree))
            low = middle
    return path[::-1]


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """Return the path that shows the tree of `old` leaves to be the beginning of that of `new` (section 2.1.2).

    Raises:
        ValueError: Not 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves cannot be the beginning of one of {new}")
    if old in {0, new}:
        return []
    path, low, high, whole = [], 0, new, True
    while high != old:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_range_root(middle, high, subtree))
            high = middle
        else:
            path.append(_range_root(low, middle, subtree))
            low, whole = middle, False
    if not whole:
        path.append(_range_root(low, high, subtree))
    return path[::-1]


def shows_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], top: bytes) -> bool:
    """Say whether a path leads from a leaf's hash at `index` to the root `top` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(step, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, step)
        place, last = place >> 1, last >> 1
    return last == 0 and found == top


def shows_consistency(
    old: int, old_top: bytes, new: int, new_top: bytes, path: Sequence[bytes]
) -> bool:
    """Say whether a path shows that the tree `old` is the beginning of `new` (RFC 9162, section 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == 0:
        return not path and old_top == EMPTY_ROOT and (new > 0 or new_top == EMPTY_ROOT)
    if old == new:
        return not path and old_top == new_top
    steps = list(path) if old & (old - 1) else [old_top, *path]
    if not steps:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    found_old = found_new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            found_old, found_new = node_hash(step, found_old), node_hash(step, found_new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found_new = node_hash(found_new, step)
        place, last = place >> 1, last >> 1
    return last == 0 and found_old == old_top and found_new == new_top


def _split(size: int) -> int:
    """Return the largest power of two below `size`, for size of 2 or more."""
    return 1 << ((size - 1).bit_length() - 1)


def _range_root(low: int, high: int, subtree: Subtree) -> bytes:
    """Return the root over leaves low to high, where low is a multiple of a power of two that is not below high - low."""
    size = high - low
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return subtree(level, low >> level)
    middle = low + _split(size)
    return node_hash(_range_root(low, middle, subtree), _range_root(middle, high, subtree))
