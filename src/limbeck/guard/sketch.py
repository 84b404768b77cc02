"""Keyed sketches of text: word hashes, shingles, bottom-k samples and winnowed fingerprints.

Every hash comes from BLAKE2b under the watch's secret, so nobody outside can choose texts that collide, nor texts that
miss each other's sample. Nothing here keeps text: what leaves is 64-bit numbers.
"""

import hashlib
import re

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
SHINGLE = 3
"""Words of a shingle: fewer find accidents, more lose what was edited."""
WINDOW = 8
"""Shingles among which winnowing keeps the smallest: texts sharing 10 words in a row share a fingerprint."""
LONGEST_WORDS = 768
"""Words of a text that are sketched; of a longer one the ends and keyed stretches in between."""
REMEMBERED_WORDS = 65_536

_SPACES = bytes.maketrans(_MARKS := b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", b" " * len(_MARKS))
_SCRIPT = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W_]+")
"""Writing without spaces counts by the sign, everything else by the word."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


class Sketcher(dict[str, int]):
    """A memory of word hashes under one key; bounded, and emptied when full."""

    def __init__(self, secret: bytes) -> None:
        """Derive the key and the shingle's multipliers from a secret of any length."""
        super().__init__()
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"limbeck-guard").digest()
        drawn = hashlib.blake2b(self._key, digest_size=8 * SHINGLE).digest()
        self._multipliers = np.frombuffer(drawn, np.uint64) | np.uint64(1)
        self._stride = int.from_bytes(self._key[:2], "little")

    @property
    def fingerprint(self) -> str:
        """Names the key without telling it: artefacts of another key are refused."""
        return hashlib.blake2b(self._key, digest_size=8, person=b"fingerprint").hexdigest()

    def __missing__(self, word: str) -> int:
        """Hash a word that is met for the first time."""
        if len(self) >= REMEMBERED_WORDS:
            self.clear()
        value = self.hash(word)
        self[word] = value
        return value

    def hash(self, text: str) -> int:
        """Return 64 keyed bits of a text."""
        material = text.encode("utf-8", "surrogatepass")
        return int.from_bytes(
            hashlib.blake2b(material, digest_size=8, key=self._key).digest(), "little"
        )

    def shingles(self, words: list[str]) -> Hashes:
        """Return the hashes of every three words in a row, in order; of a shorter text the one that it is."""
        if not words:
            return np.empty(0, np.uint64)
        if len(words) > LONGEST_WORDS:
            words = self._thin(words)
        hashes = np.fromiter(map(self.__getitem__, words), np.uint64, len(words))
        if len(hashes) < SHINGLE:
            hashes = np.concatenate([hashes, np.zeros(SHINGLE - len(hashes), np.uint64)])
        a, b, c = self._multipliers
        mixed = hashes[:-2] * a + hashes[1:-1] * b + hashes[2:] * c
        mixed ^= mixed >> _HALF
        mixed *= _MIX
        mixed ^= mixed >> _HALF
        return mixed

    def _thin(self, words: list[str]) -> list[str]:
        """Both ends, and 16 stretches in between that start where only the key's owner knows."""
        end, stretch = LONGEST_WORDS // 4, LONGEST_WORDS // 32
        step = (len(words) - 2 * end) / 16
        starts = (
            end + int(step * i) + self._stride % max(1, int(step) - stretch) for i in range(16)
        )
        middle = [word for start in starts for word in words[start : start + stretch]]
        return [*words[:end], *middle, *words[-end:]]


def words_of(text: str) -> list[str]:
    """Return the words of a text, case and punctuation folded away; signs of writing without spaces one by one."""
    if text.isascii():
        return text.lower().encode().translate(_SPACES).decode().split()
    return _SCRIPT.findall(text.casefold())


def bottom(hashes: Hashes, k: int) -> list[int]:
    """Return the k smallest different hashes, ascending: texts with a part in common tend to share them."""
    if len(hashes) > 4 * k:
        hashes = np.partition(hashes, 2 * k)[: 2 * k]
    return sorted(set(hashes.tolist()))[:k]


def fingerprints(shingles: Hashes) -> Hashes:
    """Return the winnowed fingerprints of a text (Schleimer, Wilkerson and Aiken, SIGMOD 2003), ascending.

    They are local: a text inside another one leaves the same fingerprints but for its edges.
    """
    if len(shingles) <= WINDOW:
        return np.unique(shingles.min(keepdims=True)) if len(shingles) else shingles
    windows = np.lib.stride_tricks.sliding_window_view(shingles, WINDOW)
    return np.unique(windows.min(axis=1))
