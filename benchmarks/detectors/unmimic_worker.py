"""Runs inside the environment of unmimic: reads a JSON list of texts a line, writes a JSON list of scores a line.

The guard is unmimic's own code with its own bundled attacks. The sentence encoder that it asks for is downloaded from a
hub; where there is none, `--cheap` puts hashed TF-IDF with SVD in its place, and the figures are those of its logic over
cheaper embeddings.
"""

import json
import sys
from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.pipeline import make_pipeline
from unmimic.config import Settings
from unmimic.corpus import load_families
from unmimic.guards.input.extraction import ExtractionGuard, chunks


def main() -> None:
    """Fit the guard on the first line, normal prompts, then score every further line."""
    benign: list[str] = json.loads(sys.stdin.readline())
    families = load_families(*Settings().attack_dirs)
    embed = _embedding(
        [c for prompt in benign for c in chunks(prompt)], [e for f in families for e in f.examples]
    )
    # unmimic's modules hold the function by name, so it is replaced where it is called.
    module: Any = sys.modules["unmimic.guards.input.extraction"]
    module.embed = embed
    module.embed_cached = lambda texts, _folder: embed(texts)
    guard = ExtractionGuard(families=families, benign=benign)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(_scores(guard, embed, json.loads(line))), flush=True)


def _embedding(benign: list[str], attacks: list[str]) -> Any:
    cheap = make_pipeline(
        HashingVectorizer(n_features=2**15, ngram_range=(1, 2), alternate_sign=False, norm=None),
        TfidfTransformer(sublinear_tf=True),
        TruncatedSVD(48, random_state=0),
    )
    cheap.fit([*benign, *attacks])

    def embed(texts: list[str]) -> Any:
        rows = cheap.transform(texts)
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(
            np.float32
        )

    return embed


def _scores(guard: Any, embed: Any, texts: list[str]) -> list[float]:
    """Decide on each text by the guard's own code, with the chunks of all texts embedded at once."""
    pieces = [chunks(text) for text in texts]
    flat = [piece for of in pieces for piece in of]
    if not flat:
        return [0.0] * len(texts)
    parts = np.split(embed(flat), np.cumsum([len(of) for of in pieces])[:-1])
    verdicts = [guard.decide(rows) if len(rows) else None for rows in parts]
    return [0.0 if v is None else float(v.score) + (v.action == "block") for v in verdicts]


if __name__ == "__main__":
    main()
