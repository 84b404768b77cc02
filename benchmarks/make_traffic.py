"""Write a composed traffic log and its truth.

    python benchmarks/make_traffic.py --out FOLDER [--fold a|b] [--accounts N] [--campaigns N] [--seed N] [--data DIR]

`FOLDER/log.jsonl` is a traffic log as `limbeck guard replay` reads it, `FOLDER/truth.csv` says what each account is.
`traffic/__init__.py` says what of it is real. The same options write the same bytes.
"""

import argparse
from pathlib import Path

from traffic.account import HONEST
from traffic.campaigns import training
from traffic.census import Plan
from traffic.folds import FOLDS
from traffic.log import write
from traffic.material import Material

from limbeck.errors import LimbeckError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def main() -> None:
    """Read the options and write the two files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--fold", choices=sorted(FOLDS), default="a", help="which half of the families"
    )
    parser.add_argument("--accounts", type=int, default=100, help="accounts of each honest class")
    parser.add_argument(
        "--campaigns", type=int, default=12, help="copiers' campaigns, of all sizes and mixes"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    fold = FOLDS[given.fold]
    plan = Plan(
        fold,
        given.seed,
        dict.fromkeys(HONEST, given.accounts),
        training(fold, given.campaigns, given.seed),
    )
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        lines = write(plan, Material(given.data), given.out / "log.jsonl", given.out / "truth.csv")
    except LimbeckError as error:
        raise SystemExit(f"make_traffic.py: {error}") from None
    print(f"{lines} lines: {given.out / 'log.jsonl'}, {given.out / 'truth.csv'}")


if __name__ == "__main__":
    main()
