"""Total time with capture against online distillation, over epochs and students.

    python benchmarks/breakeven.py [--quick] [--seed N] [--positions N] [--text FILE]

Three processes take turns (`arm.py`): `capture` asks the teacher and writes a store, `ours` trains from
a store, `online` asks the teacher in every step. Each takes 2,048 tokens at a time. The totals are
computed from those rates, not run: for N positions, E epochs and S students trained one after the other,

    offline = N (capture + S (decode + E ours)),    online = N S E online.

Loading, evaluation and saving are the same in both and left out. Several students that learn online side
by side, from one teacher forward, would pay the teacher once too; nothing here does that. Prints a table,
then one JSON object as the last line.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pair import make, read_text
from rich.console import Console
from rich.table import Table
from setting import Setting
from turns import Arm, Turn, interleave

_EPOCHS = (1, 2, 4)
_STUDENTS = (1, 3)


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds that a loss position takes."""

    capture: float
    """Teacher forward, choice of what to keep, encoding and writing."""
    decode: float
    """Reading the store, once a student."""
    ours: float
    online: float

    @property
    def breakeven(self) -> float | None:
        """Epochs from which one student is quicker offline; None if more epochs never help."""
        saved = self.online - self.ours
        return (self.capture + self.decode) / saved if saved > 0 else None


@dataclass(frozen=True, slots=True)
class Total:
    """One way to use the same text, in seconds."""

    epochs: int
    students: int
    offline_s: float
    online_s: float

    @property
    def offline_loses(self) -> bool:
        """Whether online is quicker."""
        return self.offline_s > self.online_s


def totals(rates: Rates, positions: int) -> list[Total]:
    """Return the totals for every number of epochs and students."""
    return [
        Total(
            epochs,
            students,
            positions * (rates.capture + students * (rates.decode + epochs * rates.ours)),
            positions * students * epochs * rates.online,
        )
        for epochs in _EPOCHS
        for students in _STUDENTS
    ]


def main() -> None:
    """Measure, print the table and the JSON line."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="limbeck-breakeven-") as folder:
        setting = _setting(options, folder)
        sizes = make(setting, read_text(options.text))
        with ExitStack() as stack:
            names = ("capture", "ours", "online")
            arms = [stack.enter_context(Arm(name, setting)) for name in names]
            turns = interleave(arms, warm_up=1, rounds=options.rounds)
        facts = {arm.name: arm.facts for arm in arms}
    rates = _rates(setting, turns, facts["ours"].decode_seconds)
    runs = totals(rates, options.positions)
    _print_table(rates, runs, options)
    result = {
        "quick": options.quick,
        "seed": setting.seed,
        "runs": [asdict(run) for run in runs],
        "offline_loses": [
            {"epochs": r.epochs, "students": r.students} for r in runs if r.offline_loses
        ],
        "breakeven_epochs_one_student": rates.breakeven,
        "computed_from_rates": True,
        "positions": options.positions,
        "seconds_per_position": asdict(rates),
        "rows": setting.rows,
        "length": setting.length,
        "rounds": options.rounds,
        "precision": setting.precision,
        "frozen_head": setting.frozen_head,
        "threads": facts["ours"].threads,
    }
    print(json.dumps(result | sizes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes; figures are rough")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument(
        "--frozen-head", action="store_true", help="train neither embeddings nor head, in any arm"
    )
    parser.add_argument("--positions", type=int, default=1_000_000, help="size of the text told of")
    parser.add_argument("--teacher", default="packaged:smollm2-135m-instruct")
    parser.add_argument("--layers", type=int, default=10, help="layers of the student")
    parser.add_argument("--rows", type=int, help="rows a step; 4, or 2 with --quick")
    parser.add_argument("--length", type=int, help="tokens a row; 512, or 128 with --quick")
    parser.add_argument("--rounds", type=int, help="steps that count; 8, or 3 with --quick")
    parser.add_argument("--text", type=Path, help="UTF-8 text, where the shared data are missing")
    options = parser.parse_args()
    for name, whole, quick in (("rows", 4, 2), ("length", 512, 128), ("rounds", 8, 3)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else whole)
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    return options


def _setting(options: argparse.Namespace, folder: str) -> Setting:
    return Setting(
        folder=folder,
        teacher=options.teacher,
        layers=options.layers,
        rows=options.rows,
        length=options.length,
        steps=1 + options.rounds,
        precision=options.precision,
        frozen_head=options.frozen_head,
        gkd_checkpointing=False,
        seed=options.seed,
    )


def _rates(setting: Setting, turns: Mapping[str, Sequence[Turn]], decode_seconds: float) -> Rates:
    each = {
        name: median(turn.seconds for turn in taken[1:]) / setting.positions
        for name, taken in turns.items()
    }
    return Rates(decode=decode_seconds / setting.positions, **each)


def _print_table(rates: Rates, runs: Sequence[Total], options: Any) -> None:
    title = f"{options.positions:,} loss positions, computed from measured rates"
    table = Table("epochs", "students", title=title + (" (quick: rough)" if options.quick else ""))
    for heading in ("offline s", "online s", "online / offline", "offline loses"):
        table.add_column(heading, justify="right")
    for run in runs:
        table.add_row(
            str(run.epochs),
            str(run.students),
            f"{run.offline_s:.0f}",
            f"{run.online_s:.0f}",
            f"{run.online_s / run.offline_s:.2f}",
            "yes" if run.offline_loses else "no",
        )
    Console(width=110).print(table)
    figures = ", ".join(f"{name} {1e6 * value:.1f}" for name, value in asdict(rates).items())
    print(f"microseconds a loss position: {figures}")
    if rates.breakeven is None:
        print("a step from the store is no quicker than an online one: offline loses everywhere")
        return
    print(
        f"offline is quicker from {rates.breakeven:.2f} epochs of one student; it loses below that, "
        "and wherever text is read once and thrown away"
        if rates.breakeven > 1
        else f"offline is quicker from {rates.breakeven:.2f} epochs of one student, so from the first; "
        "it loses where a run ends before that, since capture is paid in full"
    )


if __name__ == "__main__":
    main()
