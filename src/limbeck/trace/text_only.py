"""Audit a suspect by its text alone: choices that it copies from its teacher, tested against keys that were not used.

A *feature* reads a choice out of an answer: how it opens, in which order it makes its points, which example it takes.
For a coin whose two answers differ in the choice, the suspect's own answer to the same prompt may side with y0, with y1
or with neither. The statistic is the number of coins on which it sides with what key k served, less the number on which
it sides with what k withheld. Nothing is assumed of features, suspect or prompts: under the null hypothesis the real key
is one of M + 1 keys drawn alike, of which the suspect's text knows nothing, so

    p = (1 + #{m : T(k_m) >= T(k)}) / (M + 1)

over M fresh keys is a p-value whatever T is (Besag and Clifford, Biometrika 76, 1989). Choices are about meaning and
survive a paraphrase; they carry less than log-likelihoods, so this takes more coins.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from limbeck.errors import TraceError
from limbeck.trace.coins import KEY_BYTES, Coin, Pair, toss

Choice = frozenset[str]
"""What an answer chose; empty where it shows no choice."""
Feature = Callable[[str], Choice]
Floats = npt.NDArray[np.float64]
KEYS = 9_999
"""Fresh keys; the smallest p-value is one in one more."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+(?:[.,]\d+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_EXAMPLE = re.compile(
    r"(?:for example|for instance|such as|like|e\.g\.)[,:]?\s+(?:an?|the)?\s*", re.IGNORECASE
)
_COMMON = frozenset(
    """
    a about after all also an and any are as at be because been but by can could do does for from
    get had has have he her his how i if in into is it its just like make many may more most much
    must my no not of on one only or other our out over she should so some such than that the their
    them then there these they this those through to too up us use used using very was we were what
    when where which while who will with without would you your
    """.split()  # noqa: SIM905 - a list of a hundred strings reads worse
)
_STEM = 6
"""Letters of a word that count, so that endings do not."""


def words(text: str) -> list[str]:
    """Return the words that carry meaning, in order, each cut to its stem."""
    found = (match.group().lower() for match in _WORD.finditer(text))
    return [word[:_STEM] for word in found if word not in _COMMON]


def opening(text: str) -> Choice:
    """The first three words that carry meaning: whether it begins with a question, a definition, a person."""
    return frozenset(words(text)[:3])


def content(text: str) -> Choice:
    """All words that carry meaning: what the answer is about, in whatever order."""
    return frozenset(words(text))


def order(text: str) -> Choice:
    """Which point comes before which: pairs of the first meaning words of following sentences."""
    points = [found[0] for part in _SENTENCE.split(text) if (found := words(part))]
    return frozenset(f"{a}>{b}" for a, b in pairwise(points))


def example(text: str) -> Choice:
    """Which examples are taken: the word after "for example", "such as" and the like, numbers, and names."""
    named = [found[0] for m in _EXAMPLE.finditer(text) if (found := words(text[m.end() :][:40]))]
    inner = re.findall(r"(?<=[a-z,;] )[A-Z][a-z]{2,}", text)
    return frozenset([*named, *(n.lower()[:_STEM] for n in inner), *re.findall(r"\d+", text)])


FEATURES: Mapping[str, Feature] = {
    "opening": opening,
    "content": content,
    "order": order,
    "example": example,
}


def siding(feature: Feature, pair: Pair, written: str) -> float:
    """Return how much a text sides with y1 rather than y0 in a choice, in [-1, 1].

    Only what distinguishes the two answers counts: the share of what y1 alone chose that the text chose too, less the
    same share for y0.
    """
    zero, one, mine = feature(pair.y0), feature(pair.y1), feature(written)
    only_zero, only_one = zero - one, one - zero
    return _share(mine, only_one) - _share(mine, only_zero)


def _share(mine: Choice, theirs: Choice) -> float:
    return len(mine & theirs) / len(theirs) if theirs else 0.0


@dataclass(frozen=True, slots=True)
class KeyTest:
    """A statistic under the real key and its rank among fresh ones."""

    feature: str
    statistic: float
    p_value: float
    keys: int
    coins: int
    """Coins on which the suspect sided at all."""


def audit_texts(
    coins: Sequence[Coin],
    written: Sequence[str],
    beacon: str,
    *,
    features: Sequence[str] = tuple(FEATURES),
    keys: Sequence[bytes] | None = None,
) -> list[KeyTest]:
    """Test features of a suspect's answers, which were named before they were read; all against the same keys.

    Args:
        coins: As they were sealed.
        written: The suspect's answer to each coin's prompt.
        beacon: The beacon's value, empty where there was none.
        features: Keys of `FEATURES`.
        keys: The fresh keys; None draws `KEYS` of them. Given, they make the test repeatable.

    Raises:
        TraceError: No such feature, or not one text for each coin.
    """
    for feature in features:
        if feature not in FEATURES:
            raise TraceError(f"no feature {feature!r}; there are {', '.join(FEATURES)}")
    if len(written) != len(coins):
        raise TraceError(f"{len(coins)} coins need as many texts, got {len(written)}")
    keys = fresh_keys(KEYS) if keys is None else keys
    side_FI = np.array(
        [
            [siding(FEATURES[f], c.pair, text) for c, text in zip(coins, written, strict=True)]
            for f in features
        ]
    )
    sign_I = np.array([2 * c.bit - 1 for c in coins])
    other_FM = side_FI @ _signs(keys, beacon, coins).T
    return [
        KeyTest(f, real, rank_p_value(real, other_M), len(keys), int((side_I != 0).sum()))
        for f, side_I, other_M in zip(features, side_FI, other_FM, strict=True)
        for real in [float(sign_I @ side_I)]
    ]


def rank_p_value(real: float, others: Sequence[float] | Floats) -> float:
    """Return (1 + #{others >= real}) / (M + 1), in [1 / (M + 1), 1]; never 0."""
    # Sums in another order differ in the last places; a tie must count as one.
    slack = 1e-9 * max(1.0, abs(real))
    return (1 + int((np.asarray(others) >= real - slack).sum())) / (len(others) + 1)


def fresh_keys(count: int, seed: int | None = None) -> list[bytes]:
    """Return keys that were never used; with a seed they are the same again, so a verifier can draw them too."""
    if seed is None:
        return [secrets.token_bytes(KEY_BYTES) for _ in range(count)]
    rng = np.random.default_rng(seed)
    return [rng.bytes(KEY_BYTES) for _ in range(count)]


def _signs(keys: Sequence[bytes], beacon: str, coins: Sequence[Coin]) -> Floats:
    """Return for each key and coin 1 where it would have served y1 and -1 where y0, [M, I]."""
    hashes = [c.pair.hash for c in coins]
    bits = np.fromiter((toss(k, beacon, h) for k in keys for h in hashes), np.float64)
    return 2 * bits.reshape(len(keys), len(hashes)) - 1


def combined(tests: Sequence[KeyTest]) -> Iterator[tuple[KeyTest, float]]:
    """Yield each test with its p-value after Holm's correction for the number of features that were tried."""
    from limbeck.stats.multiple import holm

    yield from zip(tests, holm([t.p_value for t in tests]), strict=True)
