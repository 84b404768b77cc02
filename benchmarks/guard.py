"""Measure the guard: false accusations by honest class, queries to detection, and what copiers pay to stay unseen.

    python benchmarks/guard.py [--quick] [--seed N] [--accounts N] [--data DIR] [--work DIR] [--gain FILE] [--unmimic PYTHON]

Traffic is composed (`traffic/__init__.py` says what of it is real). Families fall into two folds that share no source of
text; Limbeck is fitted with `limbeck guard fit` on one fold, judged on the other, and the reverse. Nothing is tuned
on the fold that judges. In each direction:

1. **Operating point.** A log of honest accounts and campaigns goes through `limbeck guard replay` and `limbeck guard score`
   with the shipped policy; false accusations by class, the worst first.
2. **Curves.** Every detector sees the honest accounts alone; its thresholds at 0.1% and 1% are the lowest that keep *every*
   class within the budget on the very accounts that judge, which favours all detectors alike. Campaigns then start
   after that honest week: 1 to 1,000 accounts, 5 to 100% of requests copying, each tactic, and variations.
3. **White-box copier** (`detectors/adaptive.py`).
4. **Artefact control.** A classifier of text sources runs as a detector, and everything is repeated after one normaliser
   and one paraphraser have gone over the texts of both sides. Where the classifier catches as many campaigns of held-out
   families as Limbeck at the same budget, the result is withdrawn.

Prints tables and one JSON object as the last line.
"""

import argparse
import json
from pathlib import Path

from evaluation.contract import contract
from evaluation.fold import judge
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
        material = Material(plan.data)
        found = [judge(plan, FOLDS[a], FOLDS[b], material, console) for a, b in plan.directions]
    except LimbeckError as error:
        raise SystemExit(f"guard.py: {error}") from None
    for table in tables(found):
        console.print(table)
    print(json.dumps(contract(plan, found)))


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
    return Plan(
        data=given.data, work=given.work, seed=given.seed, quick=given.quick,
        accounts=given.accounts or (40 if given.quick else 500), fitted=12 if given.quick else 60, grid=not given.quick,
        queries=400 if given.quick else 1000, repeats=1 if given.quick else 2, strategies=4 if given.quick else 32,
        control=20 if given.quick else 150, gain=given.gain, unmimic=unmimic,
    )  # fmt: skip


if __name__ == "__main__":
    main()
