"""Supporting evidence, in a drawer of its own: what suspect and teacher have in common, and what that can mean.

Tokenizer, architecture and weights can be alike because one model descends from the other, because both descend from a
third, or because everybody uses the same parts; text can be alike because the question left little choice. So every
finding says what it can mean and what its error rate is, and none enters the verdict. The one exact test here, of the
order of hidden units, has a p-value; it speaks of descent of weights, not of learning from answers.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.model import LocalModel
from limbeck.trace.coins import Pair

Floats = npt.NDArray[np.float64]
PERMUTATIONS = 999
_LAYERS_COMPARED = 4
_UNITS = 512
"""Hidden units of a layer that are compared at the most."""
_SHAPE = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One likeness, labelled."""

    name: str
    value: str
    means: str
    """What it can mean, the innocent explanations included."""
    error_rate: str
    """How often it is found between unrelated models, and how that is known."""


def kinship(suspect: LocalModel, teacher: LocalModel, *, seed: int = 0) -> list[Finding]:
    """Return what two loaded models have in common.

    Args:
        suspect: The model in question.
        teacher: The model that it may descend from.
        seed: Of the permutations.
    """
    found = [tokenizer_finding(suspect, teacher), architecture_finding(suspect, teacher)]
    return found + list(weight_findings(suspect.model, teacher.model, seed=seed))


def tokenizer_finding(suspect: LocalModel, teacher: LocalModel) -> Finding:
    """Compare the two tokenizers by hash, and by the share of tokens that they have in common."""
    mine, theirs = (set(m.tokenizer.get_vocab()) for m in (suspect, teacher))
    same = suspect.tokenizer_sha256 == teacher.tokenizer_sha256
    shared = len(mine & theirs) / len(mine | theirs)
    return Finding(
        "tokenizer",
        "the same" if same else f"different; {shared:.0%} of all tokens are in both",
        "tokenizers are published and reused: the same one is what two models of one family or one vendor have",
        "not an identification: found between any two models that use a published tokenizer",
    )


def architecture_finding(suspect: LocalModel, teacher: LocalModel) -> Finding:
    """Compare what the two configurations say of shape."""
    ours, theirs = suspect.model.config, teacher.model.config
    alike = [n for n in _SHAPE if getattr(ours, n, None) == getattr(theirs, n, None)]
    return Finding(
        "architecture",
        f"{len(alike)} of {len(_SHAPE)} sizes alike ({', '.join(alike) or 'none'})",
        "an equal configuration says that a blueprint was shared, not that weights or answers were",
        "not an identification: found between any two models of one blueprint",
    )


def weight_findings(suspect: Any, teacher: Any, *, seed: int) -> Iterator[Finding]:
    """Yield what weights of equal shape say: cosine of layers, and the test of the order of hidden units."""
    pairs = list(matching_layers(suspect, teacher))
    if not pairs:
        yield Finding(
            "weights",
            "no layer of equal shape",
            "weights of other shapes cannot be compared entry by entry",
            "no test was made",
        )
        return
    cosines = [cosine(a, b) for _, a, b in pairs]
    yield Finding(
        "weights, cosine",
        f"{min(cosines):.3f} to {max(cosines):.3f} over {len(pairs)} layers",
        "near 1: one set of weights was made from the other, or both from a common ancestor; near 0: trained apart",
        "between independently initialised layers of width n about 1/n; that is geometry, not a measured rate",
    )
    yield unit_order_finding([(a, b) for _, a, b in pairs], seed=seed)


def matching_layers(suspect: Any, teacher: Any) -> Iterator[tuple[str, Floats, Floats]]:
    """Yield feed-forward input matrices of equal shape [F, D], the layers nearest in relative depth, as float64."""
    mine, theirs = _layers(suspect), _layers(teacher)
    if not mine or not theirs:
        return
    for number in np.unique(np.linspace(0, len(mine) - 1, _LAYERS_COMPARED).round().astype(int)):
        a_FD = mine[number]
        best: tuple[float, Floats] | None = None
        for b_FD in theirs:
            if b_FD.shape == a_FD.shape:
                near = abs(cosine(a_FD, b_FD))
                best = (near, b_FD) if best is None or near > best[0] else best
        if best is not None:
            yield f"layer {number}", a_FD, best[1]


def cosine(a: Floats, b: Floats) -> float:
    """Return the cosine of the angle between two arrays of one shape, in [-1, 1]; 0 where one is all zero."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def linear_cka(a_ND: Floats, b_NE: Floats) -> float:
    """Return linear CKA of two sets of activations at the same N places, in [0, 1].

    Kornblith et al. (ICML 2019), section 3: ||B'A||^2 / (||A'A|| ||B'B||) of centred activations, Frobenius norms.
    """
    a_ND = a_ND - a_ND.mean(axis=0)
    b_NE = b_NE - b_NE.mean(axis=0)
    norm = float(np.linalg.norm(a_ND.T @ a_ND) * np.linalg.norm(b_NE.T @ b_NE))
    return float(np.linalg.norm(b_NE.T @ a_ND) ** 2) / norm if norm > 0 else 0.0


def unit_order_finding(pairs: Sequence[tuple[Floats, Floats]], *, seed: int) -> Finding:
    """Test whether hidden units lie in the same order in both models.

    The units of a feed-forward layer can be permuted without changing what a model computes, and training treats all
    orders alike. So for two models that were initialised independently, every permutation of one's units is as likely
    as the real order: the rank of the mean cosine of units in their own order, among permutations, is uniform.
    """
    p = unit_order_p_value(pairs, seed=seed)
    return Finding(
        "weights, order of hidden units",
        f"p = {p:.3g} ({PERMUTATIONS} permutations)",
        "small: the weights have a common ancestor, such as a published base model or the teacher's own file; it says "
        "nothing of answers",
        "exact: at most p between independently initialised models",
    )


def unit_order_p_value(pairs: Sequence[tuple[Floats, Floats]], *, seed: int) -> float:
    """Return (1 + permutations whose units agree as well) / (permutations + 1), over layers together.

    Raises:
        ValueError: There is no pair.
    """
    if not pairs:
        raise ValueError("a test of the order of units needs at least one pair of layers")
    rng = np.random.default_rng(seed)
    tables = [_unit_cosines(a[:_UNITS], b[:_UNITS]) for a, b in pairs]
    real = sum(float(np.trace(t)) for t in tables)
    as_good = 0
    for _ in range(PERMUTATIONS):
        mixed = sum(float(t[np.arange(len(t)), rng.permutation(len(t))].sum()) for t in tables)
        as_good += mixed >= real
    return (1 + as_good) / (PERMUTATIONS + 1)


def text_finding(
    pairs: Sequence[Pair], written: Sequence[str], others: Mapping[str, Sequence[str]]
) -> Finding:
    """Compare a suspect's answers with the teacher's, beside those of other candidate teachers.

    Args:
        pairs: The teacher's two answers to each prompt.
        written: The suspect's answer to each.
        others: Answers of reference models to the same prompts, by name.
    """
    to_teacher = float(
        np.mean(
            [max(overlap(w, p.y0), overlap(w, p.y1)) for w, p in zip(written, pairs, strict=True)]
        )
    )
    rivals = {
        name: float(np.mean([overlap(w, t) for w, t in zip(written, texts, strict=True)]))
        for name, texts in others.items()
    }
    told = ", ".join(f"{name} {value:.3f}" for name, value in rivals.items())
    return Finding(
        "text, overlap of word pairs",
        f"teacher {to_teacher:.3f}" + (f"; {told}" if told else ""),
        "the likest of the candidates named here; models of one family, or trained on one web, write alike",
        "none is claimed: the true teacher need not be among the candidates",
    )


def overlap(a: str, b: str) -> float:
    """Return the share of word pairs that two texts have in common (Jaccard), in [0, 1]."""
    mine, theirs = _pairs(a), _pairs(b)
    return len(mine & theirs) / len(mine | theirs) if mine or theirs else 0.0


def _pairs(text: str) -> set[tuple[str, str]]:
    found = re.findall(r"\w+", text.lower())
    return set(pairwise(found))


def _unit_cosines(a_FD: Floats, b_FD: Floats) -> Floats:
    unit_a, unit_b = (
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a_FD, b_FD)
    )
    return unit_a @ unit_b.T


def _layers(model: Any) -> list[Floats]:
    """Return the first feed-forward matrix of each layer, [F, D]."""
    layers = getattr(getattr(model, "model", None), "layers", None) or []
    names = ("gate_proj", "up_proj", "fc1")
    found: list[Floats] = []
    for layer in layers:
        mlp = getattr(layer, "mlp", None)
        linear = next((part for n in names if (part := getattr(mlp, n, None)) is not None), None)
        if linear is not None:
            found.append(linear.weight.detach().float().cpu().double().numpy())
    return found
