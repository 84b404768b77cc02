"""The last line of `benchmarks/guard.py`."""

from collections.abc import Sequence
from typing import Any

from detectors.limbeck_watch import LIMBECK, SHIPPED
from detectors.threshold import Accusations, accusations, worst_first

from evaluation.fold import FoldResult
from evaluation.gain import Curve
from evaluation.plan import BUDGETS, Plan
from evaluation.tables import caught, median_of

CONTROL = "text source (control)"
OURS = (LIMBECK, SHIPPED)


def contract(plan: Plan, found: Sequence[FoldResult]) -> dict[str, Any]:
    """Return Limbeck's figures, and every baseline's under the same keys."""
    curve = Curve.read(plan.gain)
    return {
        "quick": plan.quick,
        "seed": plan.seed,
        "composed": True,
        "alpha": plan.alpha,
        **figures(found, SHIPPED, curve),
        "at_worst_class_budget": figures(found, LIMBECK, curve),
        "gain_measured": curve.measured,
        "replay_requests_per_second": min(result.rate for result in found),
        "withdrawn": withdrawn(found),
        "baselines": {
            name: figures(found, name, curve) for name in found[0].peak if name not in OURS
        },
    }


def withdrawn(found: Sequence[FoldResult]) -> bool:
    """Return whether the classifier of text sources catches as many campaigns as Limbeck at either budget."""
    for budget in BUDGETS:
        hits = [
            sum(q is not None for q in caught(found, name, budget, ""))
            for name in (LIMBECK, CONTROL)
        ]
        if hits[1] >= hits[0]:
            return True
    return False


def figures(found: Sequence[FoldResult], name: str, curve: Curve) -> dict[str, Any]:
    """Return a detector's figures.

    Accusations are those above the threshold that was fixed on the other fold. Detection is at that of 0.1% on the judging
    fold, at which the published detectors look their best; the shipped policy has one threshold only.
    """
    worst = _worst(found, name)
    hits = [
        (t, t.caught(name, r.above[name][BUDGETS[0]]))
        for r in found
        for e, t in r.traces
        if e.cell == "target"
    ]
    gains = [
        1.0 if hit is None else min(1.0, curve.share(float(t.copied_Q[hit - 1]))) for t, hit in hits
    ]
    factors = [price.factor for r in found for price in r.prices.get(name, ())]
    return {
        "worst_class": worst.kind,
        "worst_class_false_accusations": [worst.rate, worst.upper],
        "queries_to_detection_50x25": median_of([hit for _, hit in hits]),
        "caught_50x25": sum(hit is not None for _, hit in hits),
        "campaigns_50x25": len(hits),
        "gain_released": sum(gains) / len(gains),
        "adaptive_cost": min(factors, default=None),
        "declared_false_accusations": sum(
            r.peak[name][account] > _fixed(r, name) for r in found for account in r.declared
        ),
    }


def _worst(found: Sequence[FoldResult], name: str) -> Accusations:
    counts: dict[str, list[int]] = {}
    for result in found:
        for one in accusations(result.peak[name], result.kind, _fixed(result, name)):
            held = counts.setdefault(one.kind, [0, 0])
            held[0] += one.accounts
            held[1] += one.accused
    return worst_first([Accusations(kind, total, hit) for kind, (total, hit) in counts.items()])[0]


def _fixed(result: FoldResult, name: str) -> float:
    """The threshold fixed on the other fold; Limbeck's curve has none and takes the judging fold's."""
    return result.carried.get(name, result.above[name][BUDGETS[0]])
