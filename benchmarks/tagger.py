"""The baseline without a language model: TF-IDF and two linear classifiers.

One names the intent from the words and pairs of words of an utterance. The other names the tag of each word, from
terms for the words around it with their distance, its first and last letters, and the intent; each word alone, no
search over sequences. Both are linear support vector machines over TF-IDF, one against the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from snips import Frame, Utterance, frame_of

_REACH = 3
"""Words to each side that a tag is read from."""
_LETTERS = 3
_EDGE = "<>"
"""Stands for what lies outside the utterance."""


@dataclass(frozen=True, slots=True)
class Tagger:
    """Two fitted classifiers; owns them."""

    intents: Any
    """Pipeline from an utterance's words to its intent."""
    tags: Any
    """Pipeline from the terms of a word to its tag."""


def fit(utterances: Sequence[Utterance], *, cost: float) -> Tagger:
    """Return both classifiers, fitted to utterances and their gold labels.

    Args:
        utterances: To learn from.
        cost: `C` of both machines; the larger, the closer they follow their training data.
    """
    intents = _pipeline(cost).fit(
        [list(_phrases(u.words)) for u in utterances], [u.intent for u in utterances]
    )
    terms = [t for u in utterances for t in word_terms(u.words, u.intent)]
    tags = _pipeline(cost).fit(terms, [tag for u in utterances for tag in u.tags])
    return Tagger(intents, tags)


def name(tagger: Tagger, utterances: Sequence[Utterance]) -> list[Frame]:
    """Return the frames that the words of utterances call for; their labels are not read."""
    intents: list[str] = tagger.intents.predict(
        [list(_phrases(u.words)) for u in utterances]
    ).tolist()
    frames: list[Frame] = []
    for utterance, intent in zip(utterances, intents, strict=True):
        tags = tagger.tags.predict(word_terms(utterance.words, intent)).tolist()
        frames.append(frame_of(utterance.words, tags, intent))
    return frames


def word_terms(words: Sequence[str], intent: str) -> list[list[str]]:
    """Return the terms of each word of an utterance."""
    return [list(_terms(words, place, intent)) for place in range(len(words))]


def _terms(words: Sequence[str], place: int, intent: str) -> Iterator[str]:
    def near(distance: int) -> str:
        at = place + distance
        return words[at] if 0 <= at < len(words) else _EDGE

    for distance in range(-_REACH, _REACH + 1):
        yield f"{distance} {near(distance)}"
        yield f"{distance} {near(distance)} {intent}"
    for left in range(-2, 2):
        yield f"{left} {near(left)} {near(left + 1)}"
    word = words[place]
    yield f"first {word[:_LETTERS]}"
    yield f"last {word[-_LETTERS:]}"
    yield f"digits {word.isdigit()} {intent}"
    yield f"place {min(place, 5)} {intent}"


def _phrases(words: Sequence[str]) -> Iterator[str]:
    yield from words
    yield from map(" ".join, pairwise(words))


def _pipeline(cost: float) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    return make_pipeline(
        TfidfVectorizer(analyzer=_as_they_are, sublinear_tf=True),
        LinearSVC(C=cost, dual=True, random_state=0),
    )


def _as_they_are(terms: list[str]) -> list[str]:
    return terms
