"""Say a verified run's report again in this program's own words: the prose in a bundle is whatever its maker wrote."""

from collections.abc import Mapping
from typing import Any

from limbeck.trace.registration import Registration
from limbeck.trace.rerun import Run
from limbeck.trace.verdict import LIMITS, NOT_SHOWN, decide, propositions


def restated(report: Mapping[str, Any], run: Run, plan: Registration) -> dict[str, Any]:
    """Return the report with every sentence written anew from what came out.

    Supporting evidence is left out: nothing of it can be computed from a bundle.

    Args:
        report: Of the bundle, its figures verified.
        run: The run as it came out.
        plan: The registration.
    """
    more = report.get("more_coins")
    verdict = decide(
        run.log_e,
        alpha=plan.alpha_each,
        coins=run.coins,
        all_used=run.coins == run.at_hand,
        more_coins=more if type(more) is int else None,
    )
    teacher = str(report["teacher"].get("name", "the teacher"))
    return {
        **report,
        "because": verdict.because,
        "limits": list(LIMITS),
        "propositions": list(propositions(run.suspect, teacher)),
        "strength": verdict.strength,
        "supporting": [],
        "verdict": verdict.finding,
        "warnings": [NOT_SHOWN] if verdict.finding == "not shown" else [],
    }
