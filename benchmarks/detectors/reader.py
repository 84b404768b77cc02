"""What detectors see of a request: the observation, and cheap features of its last user turn, computed in batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from limbeck.guard.observation import Observation

DIMENSIONS = 48
_FEATURES = 2**15
_BATCH = 2000
_REMEMBERED = 400_000
_POPULATION = 4000
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request with its features."""

    one: Observation
    vector_D: Floats
    """Unit-length embedding of the last user turn: hashed TF-IDF, reduced by SVD; cheap, and weaker than a neural one."""
    source_odds: float
    """Log-odds that the text comes from a copying set, by a classifier of texts; the artefact control."""
    attack: float
    """What the input guard of `unmimic` says, from 0 to 1, plus 1 where it blocks; 0 where it does not run."""


def last_turn(one: Observation) -> str:
    """Return the text of the last user message, or of the last message at all."""
    messages = one.request.get("messages") or [{"role": "user", "content": ""}]
    asked = [m for m in messages if m.get("role") == "user"] or messages
    return str(asked[-1].get("content") or "")


class Reader:
    """Features fitted on the texts of one fold; remembers what it computed, up to a limit."""

    def __init__(
        self,
        honest: Sequence[str],
        copying: Sequence[str],
        *,
        seed: int,
        attack: Callable[[Sequence[str]], Sequence[float]] | None = None,
    ) -> None:
        """Fit embedding and source classifier.

        Args:
            honest: Texts of honest accounts, one a request.
            copying: Texts of copying requests.
            seed: Of the SVD.
            attack: Scores texts as `unmimic` does.
        """
        counts = HashingVectorizer(
            n_features=_FEATURES,
            ngram_range=(1, 2),
            alternate_sign=False,
            norm=None,
            lowercase=True,
        )
        self._embed: Pipeline = make_pipeline(
            counts, TfidfTransformer(sublinear_tf=True), TruncatedSVD(DIMENSIONS, random_state=seed)
        )
        self._embed.fit(honest)
        self.population_ND: Floats = _unit(self._embed.transform(honest[:_POPULATION]))
        """Embeddings of honest texts, for detectors that compare with the population."""
        self._source: Pipeline = make_pipeline(
            counts,
            TfidfTransformer(sublinear_tf=True),
            LogisticRegression(C=10.0, class_weight="balanced", max_iter=100),
        )
        self._source.fit([*honest, *copying], [0] * len(honest) + [1] * len(copying))
        self._attack = attack
        self._known: dict[str, tuple[Floats, float, float]] = {}

    def read(self, observations: Iterable[Observation]) -> Iterator[Seen]:
        """Yield observations with their features, in order, reading a batch ahead."""
        rest = iter(observations)
        while batch := list(islice(rest, _BATCH)):
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            texts = [last_turn(one) for one in batch]
            self._learn(texts)
            for one, text in zip(batch, texts, strict=True):
                yield Seen(one, *self._known[text])

    def vectors(self, texts: Sequence[str]) -> Floats:
        """Return the embeddings of texts, one row each."""
        self._learn(texts)
        return np.stack([self._known[text][0] for text in texts])

    def _learn(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if not new:
            return
        vector_ND = _unit(self._embed.transform(new))
        odds_N = self._source.decision_function(new)
        attack_N = self._attack(new) if self._attack else [0.0] * len(new)
        for text, vector_D, odds, attack in zip(new, vector_ND, odds_N, attack_N, strict=True):
            self._known[text] = (vector_D, float(odds), float(attack))


def _unit(vector_ND: npt.NDArray[np.float64]) -> Floats:
    return (vector_ND / np.maximum(np.linalg.norm(vector_ND, axis=1, keepdims=True), 1e-9)).astype(
        np.float32
    )
