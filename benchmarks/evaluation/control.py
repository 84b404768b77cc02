"""The artefact control: the same measurement after one normaliser and one paraphraser went over both sides' texts."""

import zlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from detectors.race import Detector, peaks, trace
from detectors.texts import Source
from detectors.threshold import threshold
from traffic.campaigns import campaign
from traffic.census import DAYS, accounts
from traffic.census import Plan as Census
from traffic.copier import marks
from traffic.disguise import normalise, paraphrase
from traffic.folds import Fold
from traffic.log import merged, rewritten
from traffic.material import Material

from evaluation.fitting import fit, open_limbeck
from evaluation.plan import BUDGETS, TARGET, Plan, fit_census, honest_census
from evaluation.reading import make_reader


@dataclass(frozen=True, slots=True)
class Control:
    """Campaigns of the target's size, with all texts rewritten."""

    accounts: int
    """Honest accounts of each class."""
    campaigns: int
    caught: dict[str, dict[float, int]]
    """Detector to budget to the campaigns that were caught."""
    queries: dict[str, dict[float, list[int | None]]]


def rewrite(text: str) -> str:
    """Return a text paraphrased and normalised; the same text always becomes the same."""
    return normalise(paraphrase(np.random.default_rng(zlib.crc32(text.encode())), text))


def control(plan: Plan, fitting: Fold, judging: Fold, material: Material, folder: Path) -> Control:
    """Fit and judge on rewritten traffic."""
    small = replace(plan, accounts=plan.control, unmimic=None)
    census = fit_census(small, fitting)
    fitted = fit(census, material, folder / "control", alpha=small.alpha, rewrite=rewrite)
    with ExitStack() as stack:
        reader = make_reader(small, fitting, material, stack, rewrite)
    limbeck = open_limbeck(fitted)
    census = honest_census(small, judging)
    kind = {account.name: account.kind for account, _ in accounts(census)}
    peak = peaks([limbeck, Source()], reader.read(rewritten(merged(census, material), rewrite)))
    queries: dict[str, dict[float, list[int | None]]] = {
        name: {b: [] for b in BUDGETS} for name in peak
    }
    for place in range(len(judging.tactics)):
        made = campaign(
            judging,
            place,
            accounts=TARGET[0],
            mix=TARGET[1],
            queries=plan.queries,
            seed=plan.seed + 700,
        )
        made = replace(made, day=DAYS)
        of = Census(judging, plan.seed, {}, (made,))
        copies = {account.name: marks(account, made) for account, _ in accounts(of)}
        racing: list[Detector] = [limbeck.branch(), Source()]
        found = trace(racing, reader.read(rewritten(merged(of, material), rewrite)), copies)
        for name, scores in peak.items():
            for budget in BUDGETS:
                queries[name][budget].append(found.caught(name, threshold(scores, kind, budget)))
    caught = {
        name: {b: sum(q is not None for q in of[b]) for b in BUDGETS}
        for name, of in queries.items()
    }
    return Control(plan.control, len(judging.tactics), caught, queries)
