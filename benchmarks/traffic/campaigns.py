"""Which campaigns a log holds: mixed ones to fit on, a grid and its variations to be judged on."""

from dataclasses import replace

import numpy as np

from traffic.account import pick
from traffic.copier import Campaign, Disguise, Linked, Tempo
from traffic.folds import Fold

SIZES = (1, 10, 100, 1000)
MIXES = (0.05, 0.1, 0.25, 0.5, 1.0)
_FITTED_SIZES = (1, 1, 3, 10, 30)
_FITTED_MIXES = (0.1, 0.25, 0.5, 1.0, 1.0)
VARIATIONS: tuple[tuple[str, Disguise, Tempo, Linked], ...] = (
    ("plain", "none", "steady", "batch"),
    ("unlinked", "none", "steady", "loose"),
    ("paraphrased", "paraphrase", "steady", "batch"),
    ("translated", "translate", "steady", "batch"),
    ("low and slow", "none", "slow", "batch"),
    ("release-day pivot", "none", "pivot", "batch"),
)


def training(fold: Fold, count: int, seed: int) -> tuple[Campaign, ...]:
    """Return campaigns of mixed sizes and mixes of a fold's tactics, without disguise, to fit a detector on."""
    rng = np.random.default_rng([seed, 7])
    return tuple(
        replace(
            campaign(
                fold,
                n,
                accounts=int(pick(rng, _FITTED_SIZES)),
                mix=float(pick(rng, _FITTED_MIXES)),
                queries=1,
                seed=seed + n,
            ),
            name=f"{fold.name}-fit-{n:03d}",
            queries=int(rng.integers(60, 600)),
            linked="batch" if rng.random() < 0.7 else "loose",
        )
        for n in range(count)
    )


def campaign(
    fold: Fold, place: int, *, accounts: int, mix: float, queries: int, seed: int
) -> Campaign:
    """Return a campaign of the fold's tactic number `place`, counted round."""
    tactic, source = fold.tactics[place % len(fold.tactics)]
    covers = fold.families["chat"]
    return Campaign(
        name=f"{fold.name}-{tactic}-{accounts}x{round(100 * mix)}-{seed}",
        tactic=tactic,
        source=source,
        accounts=accounts,
        mix=mix,
        queries=max(queries, accounts),
        cover=covers[place % len(covers)],
        prose=fold.prose,
        seed=seed,
    )
