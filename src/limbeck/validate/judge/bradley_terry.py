"""Strengths of three or more models from comparisons two by two, with intervals over prompts.

Bradley and Terry (Biometrika 39, 1952): P(i beats j) = 1 / (1 + exp(s_j - s_i)). A tie counts half for both. The
strengths minimise the negative log-likelihood plus ridge / 2 sum s^2, which is strictly convex and centres them on 0;
the ridge is small, and is there so that a resample in which a model never lost still has an answer.

The interval resamples *prompts*, not comparisons: all comparisons on one prompt share its luck. A bootstrap over
comparisons takes them for independent and its intervals are far too narrow (`tests/validate/judge` measures it).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from limbeck.errors import JudgeError

Doubles = npt.NDArray[np.float64]

RIDGE = 0.01
_STEPS = 50
_CLOSE = 1e-9
_STRIDE = 2.0
"""Longest step at once, in nats: from far away Newton's method overshoots."""


@dataclass(frozen=True, slots=True)
class Match:
    """One comparison of two models on one prompt."""

    prompt: str
    left: str
    right: str
    share: float
    """The left model's share of the win, in [0, 1]; a tie is 0.5."""


@dataclass(frozen=True, slots=True)
class Strength:
    """Where one model stands."""

    model: str
    score: float
    """In nats of odds; the scores of all models sum to 0. A lead of 1 wins 73% of comparisons."""
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """All models, the strongest first."""

    strengths: tuple[Strength, ...]
    prompts: int
    matches: int
    confidence: float
    """Of each interval by itself."""


def bradley_terry(
    matches: Sequence[Match],
    *,
    seed: int,
    resamples: int = 1000,
    confidence: float = 0.95,
    ridge: float = RIDGE,
) -> Ranking:
    """Rank models by their comparisons.

    Args:
        matches: Comparisons of three models or more.
        seed: Draws the resamples of prompts.
        resamples: How many, at least 1.
        confidence: Of each interval, in (0, 1); the percentile method.
        ridge: Penalty on the squared strengths, above 0.

    Raises:
        JudgeError: Fewer than three models, a share outside [0, 1], a model against itself, or models that fall
            into groups between which nothing was won and lost, so that no common scale exists.
    """
    models = sorted({m.left for m in matches} | {m.right for m in matches})
    _check(matches, models)
    wins_PKK = _wins(matches, models)
    total_KK = wins_PKK.sum(0)
    _check_connected(total_KK, models)
    score_K = fit(total_KK[None], ridge)[0]
    prompts = len(wins_PKK)
    weight_BP = np.random.default_rng(seed).multinomial(
        prompts, np.full(prompts, 1 / prompts), size=resamples
    )
    drawn_BKK = np.einsum("bp,pij->bij", weight_BP.astype(np.float64), wins_PKK)
    score_BK = fit(drawn_BKK, ridge)
    tail = (1 - confidence) / 2
    low_K, high_K = np.quantile(score_BK, [tail, 1 - tail], axis=0)
    order = np.argsort(-score_K, kind="stable")
    return Ranking(
        tuple(
            Strength(models[k], float(score_K[k]), float(low_K[k]), float(high_K[k])) for k in order
        ),
        prompts,
        len(matches),
        confidence,
    )


def fit(wins_BKK: Doubles, ridge: float = RIDGE) -> Doubles:
    """Return the strengths [B, K] that make each table of wins likeliest, by Newton's method.

    Args:
        wins_BKK: Row's wins over column, ties half; diagonals are 0.
        ridge: Penalty on the squared strengths, above 0.
    """
    tables, models, _ = wins_BKK.shape
    score_BK = np.zeros((tables, models))
    games_BKK = wins_BKK + wins_BKK.transpose(0, 2, 1)
    eye_KK = np.eye(models)
    for _ in range(_STEPS):
        p_BKK = expit(score_BK[:, :, None] - score_BK[:, None, :])
        slope_BK = (wins_BKK - games_BKK * p_BKK).sum(2) - ridge * score_BK
        curve_BKK = games_BKK * p_BKK * (1 - p_BKK)
        hessian_BKK = (curve_BKK.sum(2) + ridge)[:, :, None] * eye_KK - curve_BKK
        step_BK = np.linalg.solve(hessian_BKK, slope_BK[:, :, None])[:, :, 0]
        longest_B1 = np.abs(step_BK).max(1, keepdims=True)
        score_BK += step_BK * np.minimum(1, _STRIDE / np.maximum(longest_B1, _STRIDE))
        if longest_B1.max() < _CLOSE:
            break
    return score_BK


def _check(matches: Sequence[Match], models: Sequence[str]) -> None:
    if len(models) < 3:
        raise JudgeError(f"a ranking needs three models or more, got {', '.join(models) or 'none'}")
    for m in matches:
        if m.left == m.right:
            raise JudgeError(f"{m.left} cannot be compared with itself (prompt {m.prompt})")
        if not 0 <= m.share <= 1:
            raise JudgeError(
                f"a share of the win must be in [0, 1], got {m.share} (prompt {m.prompt})"
            )


def _wins(matches: Sequence[Match], models: Sequence[str]) -> Doubles:
    prompts = {prompt: p for p, prompt in enumerate(dict.fromkeys(m.prompt for m in matches))}
    place = {model: k for k, model in enumerate(models)}
    wins_PKK = np.zeros((len(prompts), len(models), len(models)))
    for m in matches:
        p, i, j = prompts[m.prompt], place[m.left], place[m.right]
        wins_PKK[p, i, j] += m.share
        wins_PKK[p, j, i] += 1 - m.share
    return wins_PKK


def _check_connected(total_KK: Doubles, models: Sequence[str]) -> None:
    """Refuse wins from which no finite strengths follow (Ford, American Mathematical Monthly 64, 1957)."""
    reach_KK = (total_KK > 0) | np.eye(len(models), dtype=bool)
    for _ in range(len(models)):
        reach_KK = (reach_KK.astype(np.int64) @ reach_KK.astype(np.int64)) > 0
    for k, model in enumerate(models):
        if not reach_KK[:, k].all() or not reach_KK[k].all():
            apart_K = ~(reach_KK[:, k] & reach_KK[k])
            never = [other for other, apart in zip(models, apart_K, strict=True) if apart]
            raise JudgeError(
                f"no common scale: between {model} and {', '.join(never)} nothing was both won and lost, "
                "not even through other models; compare them on more prompts"
            )
