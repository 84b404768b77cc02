"""Supporting evidence, in a drawer of its own: what suspect and teacher have in common, and what that can mean.

Tokenizer, architecture and weights can be alike because one model descends from the other, because both descend from a
third, or because everybody uses the same parts. So every finding says what it can mean and what its error rate is, and
none enters the verdict. The one exact test here, of the order of hidden units, has a p-value; it speaks of descent of
weights, not of learning from answers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.model import LocalModel
from limbeck.trace.activations import cka_finding
from limbeck.trace.likeness import Finding

Floats = npt.NDArray[np.float64]
PERMUTATIONS = 999
_LAYERS_COMPARED = 4
_UNITS = 512
"""Hidden units of a layer that are compared at the most, the first ones; a table of cosines has their square."""
_SLACK = 1e-9
"""Sums in another order differ in the last places; a tie must count as one."""
_SHAPE = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


def kinship(
    suspect: LocalModel, teacher: LocalModel, prompts: Sequence[str], *, seed: int = 0
) -> list[Finding]:
    """Return what two loaded models have in common.

    Args:
        suspect: The model in question.
        teacher: The model that it may descend from.
        prompts: Text at which activations are compared, such as the coins'.
        seed: Of the permutations.
    """
    return [
        tokenizer_finding(suspect, teacher),
        architecture_finding(suspect, teacher),
        *weight_findings(suspect.model, teacher.model, seed=seed),
        cka_finding(suspect, teacher, prompts),
    ]


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
        likeness=1.0 if same else shared,
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
        likeness=len(alike) / len(_SHAPE),
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
    cosines = [max((cosine(a, b) for b in others), key=abs) for a, others in pairs]
    yield Finding(
        "weights, cosine",
        f"{min(cosines):.3f} to {max(cosines):.3f} over {len(pairs)} layers, each beside the teacher's most similar",
        "near 1: one set of weights was made from the other, or both from a common ancestor; near 0: trained apart",
        "between independently initialised matrices of n entries about 1/sqrt(n): geometry, not a count",
        likeness=max(map(abs, cosines)),
    )
    yield unit_order_finding(pairs, seed=seed)


def matching_layers(suspect: Any, teacher: Any) -> Iterator[tuple[Floats, list[Floats]]]:
    """Yield feed-forward input matrices [F, D] of some layers, each with all of the teacher's of equal shape."""
    mine, theirs = _layers(suspect), _layers(teacher)
    if not mine or not theirs:
        return
    for number in np.unique(np.linspace(0, len(mine) - 1, _LAYERS_COMPARED).round().astype(int)):
        a_FD = mine[number]
        if alike := [b_FD for b_FD in theirs if b_FD.shape == a_FD.shape]:
            yield a_FD, alike


def cosine(a: Floats, b: Floats) -> float:
    """Return the cosine of the angle between two arrays of one shape, in [-1, 1]; 0 where one is all zero."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def unit_order_finding(pairs: Sequence[tuple[Floats, Sequence[Floats]]], *, seed: int) -> Finding:
    """Test whether hidden units lie in the same order in both models.

    The units of a feed-forward layer can be permuted without changing what a model computes, and training treats all
    orders alike. So for two models that were initialised independently, every permutation of one's units is as likely
    as the real order: the rank of the real order's agreement, among permutations, is uniform.
    """
    p = unit_order_p_value(pairs, seed=seed)
    return Finding(
        "weights, order of hidden units",
        f"p = {p:.3g} ({PERMUTATIONS} permutations)",
        "small: the weights have a common ancestor, such as a published base model or the teacher's own file; it says "
        "nothing of answers",
        "exact: at most p between independently initialised models",
        likeness=1 - p,
    )


def unit_order_p_value(pairs: Sequence[tuple[Floats, Sequence[Floats]]], *, seed: int) -> float:
    """Return (1 + permutations whose units agree as well) / (permutations + 1), over layers together.

    The agreement of a layer is that with whichever of the other model's layers agrees best, and it is so for every
    permutation, too: a layer chosen by its real order alone would make the p-value too small.

    Args:
        pairs: A layer [F, D] of one model with layers of the other of the same shape; at least one.
        seed: Of the permutations.

    Raises:
        ValueError: There is no pair.
    """
    if not pairs:
        raise ValueError("a test of the order of units needs at least one pair of layers")
    rng = np.random.default_rng(seed)
    tables = [np.stack([_unit_cosines(a, b) for b in others]) for a, others in pairs]
    real = sum(_agreement(t, np.arange(t.shape[1])) for t in tables)
    as_good = sum(
        sum(_agreement(t, rng.permutation(t.shape[1])) for t in tables) >= real - _SLACK
        for _ in range(PERMUTATIONS)
    )
    return (1 + as_good) / (PERMUTATIONS + 1)


def _agreement(table_LFF: Floats, order_F: npt.NDArray[np.int64]) -> float:
    """Return the sum of cosines of units in this order, for the layer where it is the largest."""
    return float(table_LFF[:, np.arange(len(order_F)), order_F].sum(axis=1).max())


def _unit_cosines(a_FD: Floats, b_FD: Floats) -> Floats:
    unit_a, unit_b = (
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a_FD, b_FD)
    )
    return unit_a @ unit_b.T


def _layers(model: Any) -> list[Floats]:
    """Return the first feed-forward matrix of each layer, [F, D], of at most `_UNITS` hidden units."""
    layers = getattr(getattr(model, "model", None), "layers", None) or []
    names = ("gate_proj", "up_proj", "fc1")
    found: list[Floats] = []
    for layer in layers:
        mlp = getattr(layer, "mlp", None)
        linear = next((part for n in names if (part := getattr(mlp, n, None)) is not None), None)
        if linear is not None:
            found.append(linear.weight.detach()[:_UNITS].float().cpu().double().numpy())
    return found
