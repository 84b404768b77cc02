"""Whose text is a suspect's likest to? Overlap of word pairs with the teacher's answers and with other candidates'.

The candidate whose text is likest is always *some* candidate, so being it means little by itself. References, which
never learned from what was served, answer the same prompts: how often they come out as near to the teacher is the
error rate, and the rank of the suspect among them is a p-value as far as the suspect is exchangeable with them.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from limbeck.trace.coins import Pair
from limbeck.trace.likeness import Finding

Floats = npt.NDArray[np.float64]
NAME = "text, overlap of word pairs"
_DRAWS = 999


def text_finding(
    pairs: Sequence[Pair],
    written: Sequence[str],
    candidates: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
) -> Finding:
    """Compare a suspect's answers with the teacher's and with those of other candidate teachers.

    Args:
        pairs: The teacher's two answers to each prompt.
        written: The suspect's answer to each.
        candidates: Answers of other candidate teachers to the same prompts, by name; at least one.
        references: Answers of models that never learned from what was served, by name.
        seed: Of the interval's resampling.

    Raises:
        ValueError: No candidate, or not one answer for each prompt.
    """
    if not candidates:
        raise ValueError("a likest candidate needs another candidate beside the teacher")
    lead_I = leads(pairs, written, candidates)
    low, high = _interval(lead_I, seed)
    lead = float(lead_I.mean())
    others = [float(leads(pairs, texts, candidates).mean()) for texts in references.values()]
    return Finding(
        NAME,
        f"{_told(pairs, written, candidates)}; the teacher's lead {lead:+.3f} [{low:+.3f}, {high:+.3f}] over "
        f"{len(pairs)} prompts" + _rank(lead, others),
        "the likest of the candidates named here, who need not include the true one; models of one family, or trained "
        "on one web, write alike",
        "counted below: how often the teacher comes out likest; a p-value among references holds as far as the suspect is one of their kind (model-based)",
        # How large a lead is depends on how long and how free the answers are; whether there is one does not.
        likeness=float(lead > 0),
    )


def leads(
    pairs: Sequence[Pair], written: Sequence[str], candidates: Mapping[str, Sequence[str]]
) -> Floats:
    """Return for each prompt the overlap with the teacher less that with the likest other candidate, in [-1, 1].

    Which other candidate is the likest is decided over all prompts together. The teacher's overlap is the mean over
    its two answers: the better of two would put it before candidates of whom one is known.
    """
    teacher_I = np.array([_with_pair(w, p) for w, p in zip(written, pairs, strict=True)])
    others_CI = np.array(
        [[overlap(w, t) for w, t in zip(written, c, strict=True)] for c in candidates.values()]
    )
    return teacher_I - others_CI[int(others_CI.mean(axis=1).argmax())]


def overlap(a: str, b: str) -> float:
    """Return the share of word pairs that two texts have in common (Jaccard), in [0, 1]."""
    mine, theirs = _word_pairs(a), _word_pairs(b)
    return len(mine & theirs) / len(mine | theirs) if mine or theirs else 0.0


def _with_pair(text: str, pair: Pair) -> float:
    return (overlap(text, pair.y0) + overlap(text, pair.y1)) / 2


def _told(
    pairs: Sequence[Pair], written: Sequence[str], candidates: Mapping[str, Sequence[str]]
) -> str:
    teacher = np.mean([_with_pair(w, p) for w, p in zip(written, pairs, strict=True)])
    means = [
        (name, float(np.mean([overlap(w, t) for w, t in zip(written, texts, strict=True)])))
        for name, texts in candidates.items()
    ]
    return ", ".join(f"{name} {value:.3f}" for name, value in [("teacher", float(teacher)), *means])


def _rank(lead: float, others: Sequence[float]) -> str:
    if not others:
        return "; no reference to rank it among"
    p = (1 + sum(other >= lead for other in others)) / (len(others) + 1)
    return f"; p = {p:.2g} among {len(others)} references"


def _interval(lead_I: Floats, seed: int) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the mean, over prompts."""
    rng = np.random.default_rng(seed)
    means = lead_I[rng.integers(0, len(lead_I), (_DRAWS, len(lead_I)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _word_pairs(text: str) -> set[tuple[str, str]]:
    return set(pairwise(re.findall(r"\w+", text.lower())))
