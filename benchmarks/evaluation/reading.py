"""Features fitted on the texts of the fold that is fitted on."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
from detectors.reader import Reader, last_turn
from detectors.unmimic_process import UnmimicProcess
from traffic.census import accounts
from traffic.copier import marks
from traffic.folds import Fold
from traffic.log import merged, rewritten
from traffic.material import Material

from evaluation.plan import Plan, fit_census

_TEXTS = 6_000
"""Texts of each side on which features are fitted, at the most."""


def make_reader(
    plan: Plan,
    fold: Fold,
    material: Material,
    stack: ExitStack,
    rewrite: Callable[[str], str] | None = None,
) -> Reader:
    """Fit features on a fold's texts."""
    census = fit_census(plan, fold)
    guilty = {a.name: marks(a, c) for a, c in accounts(census) if c is not None}
    asked: dict[str, int] = {}
    honest, copying = list[str](), list[str]()
    for one in rewritten(merged(census, material), rewrite):
        n = asked[one.account] = asked.get(one.account, -1) + 1
        if one.account not in guilty:
            honest.append(last_turn(one))
        elif guilty[one.account][n]:
            copying.append(last_turn(one))
    rng = np.random.default_rng(plan.seed)
    honest, copying = (_some(rng, texts) for texts in (honest, copying))
    attack = None
    if plan.unmimic is not None:
        attack = stack.enter_context(UnmimicProcess(plan.unmimic, honest[:1000]))
    return Reader(honest, copying, seed=plan.seed, attack=attack)


def _some(rng: np.random.Generator, texts: Sequence[str]) -> list[str]:
    chosen = rng.permutation(len(texts))[:_TEXTS]
    return [texts[int(n)] for n in chosen]
