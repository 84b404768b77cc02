"""The last line of `benchmarks/guard.py`."""

from collections.abc import Sequence
from typing import Any

from detectors.threshold import accusations

from evaluation.fold import FoldResult
from evaluation.gain import Curve
from evaluation.plan import BUDGETS, Plan
from evaluation.tables import caught, honest, median_of

CONTROL = "text source (control)"


def contract(plan: Plan, found: Sequence[FoldResult]) -> dict[str, Any]:
    """Return Limbeck's figures, and every baseline's under the same keys."""
    curve = Curve.read(plan.gain)
    mine = _figures(found, "limbeck", curve) | _operating(found)
    return {
        "quick": plan.quick,
        "seed": plan.seed,
        "composed": True,
        **mine,
        "gain_measured": curve.measured,
        "replay_requests_per_second": min(result.rate for result in found),
        "withdrawn": withdrawn(found),
        "baselines": {
            name: _figures(found, name, curve) for name in found[0].peak if name != "limbeck"
        },
    }


def withdrawn(found: Sequence[FoldResult]) -> bool:
    """Return whether the classifier of text sources catches as many campaigns as Limbeck at either budget."""
    for budget in BUDGETS:
        hits = [
            sum(q is not None for q in caught(found, name, budget, ""))
            for name in ("limbeck", CONTROL)
        ]
        if hits[1] >= hits[0]:
            return True
    return False


def _operating(found: Sequence[FoldResult]) -> dict[str, Any]:
    worst = honest(found)[0]
    return {"worst_class": worst.kind, "worst_class_false_accusations": [worst.rate, worst.upper]}


def _figures(found: Sequence[FoldResult], name: str, curve: Curve) -> dict[str, Any]:
    """Accusations at the threshold that was fixed on the other fold; detection at 0.1% on the judging fold."""
    realised = [accusations(r.peak[name], r.kind, r.carried[name])[0] for r in found]
    worst = max(realised, key=lambda one: (one.rate, one.upper))
    released = [
        trace.copied_Q[(trace.caught(name, r.above[name][BUDGETS[0]]) or len(trace.copied_Q)) - 1]
        if trace.caught(name, r.above[name][BUDGETS[0]])
        else curve.pool
        for r in found
        for entry, trace in r.traces
        if entry.cell == "target"
    ]
    factors = [min((p.factor for p in r.prices[name]), default=None) for r in found]
    return {
        "worst_class": worst.kind,
        "worst_class_false_accusations": [worst.rate, worst.upper],
        "queries_to_detection_50x25": median_of(caught(found, name, BUDGETS[0], "target")),
        "caught_50x25": [
            sum(q is not None for q in caught(found, name, b, "target")) for b in BUDGETS
        ],
        "campaigns_50x25": len(released),
        "gain_released": sum(min(1.0, curve.share(float(n))) for n in released) / len(released),
        "adaptive_cost": min(f for f in factors if f is not None),
        "declared_false_accusations": sum(
            r.peak[name][account] > r.carried[name] for r in found for account in r.declared
        ),
    }
