"""How like its teacher a student answers, right or wrong: no gold is needed.

Fidelity is not quality (Stanton et al., arXiv 2106.05945): a student may be right where the teacher is not. It is kept
in a ledger of its own and never averaged with what was verified.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.stats.estimate import Estimate
from limbeck.stats.proportion import wilson
from limbeck.validate.outcome import Outcome, Outcomes
from limbeck.validate.score.exact import plain

BINS = 10
"""Bins of equal width of the calibration error."""
_REFUSAL = re.compile(
    r"^\W*(?:i(?:'|’)?m sorry|i am sorry|sorry,|i apologi[sz]e|i can(?:'|’|no)t|i cannot|i am (?:unable|not able)"
    r"|i(?:'|’)m (?:unable|not able)|as an ai\b|i won(?:'|’)t|i must decline|unfortunately, i can)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """On one task, how often both answer alike and how often the verdict on the answer flips."""

    task: str
    same: Estimate
    """Share of items with the same choice, or the same text but for case, white space and edges."""
    flipped: Estimate
    """Share of items that exactly one of the two gets right (Dutta et al., arXiv 2407.09141)."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "task": self.task,
            "same_answer": self.same.as_dict(),
            "flipped": self.flipped.as_dict(),
        }


def agreement(
    task: str, teacher: Sequence[Outcome], student: Sequence[Outcome]
) -> Agreement | None:
    """Return how alike two models answer one task; None where only scores are known."""
    theirs = {o.item: o for o in student}
    pairs = [(t, theirs[t.item]) for t in teacher]
    alike = [_same(t, s) for t, s in pairs]
    known = [a for a in alike if a is not None]
    if not known:
        return None
    flipped = sum((t.score >= 0.5) != (s.score >= 0.5) for t, s in pairs)
    return Agreement(task, wilson(sum(known), len(known)), wilson(flipped, len(pairs)))


def _same(teacher: Outcome, student: Outcome) -> bool | None:
    if teacher.choice is not None and student.choice is not None:
        return teacher.choice == student.choice
    if teacher.text is not None and student.text is not None:
        return plain(teacher.text) == plain(student.text)
    return None


def calibration_error(outcomes: Sequence[Outcome]) -> float | None:
    """Return the expected calibration error of a model's choices, in [0, 1]; None without confidences.

    The mean over items of |accuracy - confidence| of the bin that they fall in, ten bins of equal width
    (Guo et al., arXiv 1706.04599).
    """
    said = [(o.confidence, o.score) for o in outcomes if o.confidence is not None]
    if not said:
        return None
    confidence_I, score_I = np.array(said).T
    bin_I = np.minimum((confidence_I * BINS).astype(int), BINS - 1)
    off = np.bincount(bin_I, weights=score_I - confidence_I, minlength=BINS)
    return float(np.abs(off).sum() / len(said))


def is_refusal(text: str) -> bool:
    """Tell whether an answer opens as refusals do: a rule on its first words, which misses polite ones."""
    return _REFUSAL.match(text) is not None


@dataclass(frozen=True, slots=True)
class Writing:
    """How long a model's written answers are, and how many refuse."""

    answers: int
    words: tuple[float, float, float]
    """10th, 50th and 90th percentile."""
    empty: int
    refused: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "answers": self.answers,
            "words_p10_p50_p90": list(self.words),
            "empty": self.empty,
            "refused": self.refused.as_dict(),
        }


def writing(outcomes: Sequence[Outcome]) -> Writing | None:
    """Return figures of written answers; None where nothing was written."""
    texts = [o.text for o in outcomes if o.text is not None]
    if not texts:
        return None
    low, middle, high = np.quantile([len(t.split()) for t in texts], [0.1, 0.5, 0.9])
    refused = wilson(sum(map(is_refusal, texts)), len(texts))
    empty = sum(not t.strip() for t in texts)
    return Writing(len(texts), (float(low), float(middle), float(high)), empty, refused)


def fidelity_ledger(
    teacher: Outcomes, student: Outcomes, divergence: Mapping[str, Any] | None, why_not: str | None
) -> dict[str, Any]:
    """Return the ledger as JSON values.

    Args:
        teacher: Task to outcomes.
        student: The same tasks.
        divergence: KL and agreement over tokens, as `distill.evaluate` measures them.
        why_not: Why there is no divergence; None where there is.
    """
    found = [agreement(name, teacher[name], student[name]) for name in teacher]
    both = {"teacher": teacher, "student": student}
    flat = {who: [o for rows in outcomes.values() for o in rows] for who, outcomes in both.items()}
    written = {who: writing(rows) for who, rows in flat.items()}
    return {
        "agreement": [a.as_dict() for a in found if a is not None],
        "calibration_error": {who: calibration_error(rows) for who, rows in flat.items()},
        "writing": {who: w and w.as_dict() for who, w in written.items()},
        "length_distance": length_distance(flat["teacher"], flat["student"]),
        "divergence": None if divergence is None else dict(divergence),
        "divergence_reason": why_not,
    }


def length_distance(teacher: Sequence[Outcome], student: Sequence[Outcome]) -> float | None:
    """Return the largest distance between the two distributions of answer lengths, in [0, 1] (Kolmogorov-Smirnov)."""
    from scipy.stats import ks_2samp

    ours, theirs = (
        [len(o.text.split()) for o in rows if o.text is not None] for rows in (teacher, student)
    )
    if not (ours and theirs):
        return None
    found: Any = ks_2samp(ours, theirs)
    return float(found.statistic)
