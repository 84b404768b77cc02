"""Measure the guard: false accusations by honest class, queries to detection, and what copiers pay to stay unseen.

    python benchmarks/guard.py [--quick] [--seed N] [--accounts N] [--queries N] [--data DIR] [--work DIR] [--gain FILE] [--unmimic PYTHON]

Traffic is composed (`traffic/__init__.py` says what of it is real). Families fall into two folds that share no source of
text; Limbeck is fitted with `limbeck guard fit` on one fold, judged on the other, and the reverse. Nothing is tuned
on the fold that judges. In each direction:

1. **Mixed log.** Honest accounts with campaigns among them go through `limbeck guard replay` and `limbeck guard score`.
2. **Honest accounts and campaigns.** Every detector sees the honest accounts of a week; Limbeck with the shipped policy at the
   alpha that its calibration supports, and as a curve. Thresholds of curves at 0.1% and 1% are the lowest that keep *every* class
   within the budget on the very accounts that judge, which favours all detectors alike. Campaigns then start after that
   week: 1 to 1,000 accounts, 5 to 100% of requests copying, each tactic, and variations.
3. **White-box copier** (`detectors/adaptive.py`).
4. **Artefact control.** A classifier of text sources runs as a detector, and everything is repeated after one normaliser
   and one paraphraser have gone over the texts of both sides. Where the classifier catches as many campaigns of held-out
   families as Limbeck at the same budget, the result is withdrawn.

Prints tables and one JSON object as the last line.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from evaluation.contract import contract
from evaluation.fold import FoldResult, judge
from evaluation.plan import Plan
from evaluation.tables import tables
from rich.console import Console
from traffic.folds import FOLDS
from traffic.material import Material

from limbeck.errors import LimbeckError

_ROOT = Path(__file__).resolve().parents[1]
_UNMIMIC = _ROOT / ".venv-unmimic" / "bin" / "python"


def main() -> None:
    """Judge each fold by what was fitted on the other, and print the figures."""
    plan = _options()
    console = Console(width=130)
    try:
        with ProcessPoolExecutor(len(plan.directions)) as pool:
            found = list(pool.map(_judge, repeat(plan), plan.directions))
    except LimbeckError as error:
        raise SystemExit(f"guard.py: {error}") from None
    for table in tables(found):
        console.print(table)
    print(json.dumps(contract(plan, found)))


def _judge(plan: Plan, direction: tuple[str, str]) -> FoldResult:
    fitting, judging = (FOLDS[name] for name in direction)
    return judge(plan, fitting, judging, Material(plan.data), Console(width=130))


def _options() -> Plan:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one direction, few accounts; about a minute, rough"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--accounts",
        type=int,
        help="honest accounts of each class in each fold; 500, 40 with --quick",
    )
    parser.add_argument(
        "--queries", type=int, help="requests of a campaign; 1000, 400 with --quick"
    )
    parser.add_argument(
        "--strategies", type=int, help="random strategies of the copier; 32, 4 with --quick"
    )
    parser.add_argument(
        "--control", type=int, help="honest accounts of each class in the control; 150, 24"
    )
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=_ROOT / "runs" / "guard")
    parser.add_argument(
        "--gain",
        type=Path,
        help="what guard_gain.py printed; else gain is taken to grow with the answers",
    )
    parser.add_argument(
        "--unmimic", type=Path, default=_UNMIMIC, help="python of an environment with unmimic"
    )
    given = parser.parse_args()
    unmimic = given.unmimic if given.unmimic.is_file() else None
    if unmimic is None:
        print(f"unmimic is left out: there is no {given.unmimic}; `make baselines` makes it")
    sizes = (40, 400, 4, 24) if given.quick else (500, 1000, 32, 150)
    asked = (given.accounts, given.queries, given.strategies, given.control)
    accounts, queries, strategies, control = (a or s for a, s in zip(asked, sizes, strict=True))
    return Plan(
        data=given.data, work=given.work, seed=given.seed, quick=given.quick, accounts=accounts,
        fitted=max(12, min(60, accounts // 2)), grid=not given.quick, queries=queries, repeats=1 if given.quick else 2,
        strategies=strategies, control=control, gain=given.gain, unmimic=unmimic,
    )  # fmt: skip


if __name__ == "__main__":
    main()
