"""Training steps side by side: ours from a store, plain cross-entropy, dense online distillation, TRL.

    python benchmarks/step.py [--quick] [--seed N] [--precision bf16|float32] [--frozen-head] [--compiled]
                              [--text FILE]

The same student start, batches, optimiser and clipping in every arm; the arms are processes that take
turns (`arm.py` says what each does and how memory is counted). A batch is 4 rows of 512 tokens without
padding. `ours` is `limbeck.distill.train` itself and `gkd` the Trainer itself, both stopped between
steps; the store is read before, and its decoding is added to each step of `ours`. Ratios are medians over
rounds of the ratio within a round, extra memory is the highest of all steps. Prints a table, then one
JSON object as the last line.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from pair import make, read_text
from rich.console import Console
from rich.table import Table
from setting import Setting
from turns import Arm, Facts, Turn, extra, interleave, ratio

_ROOT = Path(__file__).resolve().parents[1]
_BASELINES = _ROOT / ".venv-baselines" / "bin" / "python"
_MISSING = "no environment with TRL: run `make baselines`, or give --baselines PYTHON"
_NAMES = {
    "ours": "ours, from store",
    "compiled": "ours, layers compiled",
    "cross_entropy": "plain cross-entropy",
    "gkd": "TRL GKDTrainer, off-policy",
    "online": "dense, teacher online",
}
_SAME_LOSS = 0.02
"""Relative difference of the two dense arms' first losses that rounding explains."""


def main() -> None:
    """Measure, print the table and the JSON line."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="limbeck-step-") as folder:
        setting = _setting(options, folder)
        sizes = make(setting, read_text(options.text))
        has_gkd = options.baselines.is_file()
        arms: dict[str, str | None] = {"ours": None, "cross_entropy": None, "online": None}
        if options.compiled:
            arms["compiled"] = None
        if has_gkd:
            arms["gkd"] = str(options.baselines)
        facts, turns = _take_turns(setting, arms, options)
    result = _result(setting, facts, turns, options) | sizes
    _print_table(setting, result)
    if not has_gkd:
        print(_MISSING)
    print(json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes; figures are rough")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument(
        "--frozen-head", action="store_true", help="train neither embeddings nor head, in any arm"
    )
    parser.add_argument(
        "--gkd-checkpointing", action="store_true", help="leave TRL's checkpointing on, its default"
    )
    parser.add_argument(
        "--compiled", action="store_true", help="also ours with train.compile; needs a C++ compiler"
    )
    parser.add_argument("--teacher", default="packaged:smollm2-135m-instruct")
    parser.add_argument("--layers", type=int, default=10, help="layers of the student")
    parser.add_argument("--rows", type=int, help="rows a step; 4, or 2 with --quick")
    parser.add_argument("--length", type=int, help="tokens a row; 512, or 128 with --quick")
    parser.add_argument("--rounds", type=int, help="steps that count; 10, or 3 with --quick")
    parser.add_argument("--text", type=Path, help="UTF-8 text, where the shared data are missing")
    parser.add_argument("--baselines", type=Path, default=_BASELINES, help="Python that has TRL")
    options = parser.parse_args()
    for name, whole, quick in (("rows", 4, 2), ("length", 512, 128), ("rounds", 10, 3)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else whole)
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    options.warm_up = 1 if options.quick else 2
    return options


def _setting(options: argparse.Namespace, folder: str) -> Setting:
    return Setting(
        folder=folder,
        teacher=options.teacher,
        layers=options.layers,
        rows=options.rows,
        length=options.length,
        steps=options.warm_up + options.rounds,
        precision=options.precision,
        frozen_head=options.frozen_head,
        gkd_checkpointing=options.gkd_checkpointing,
        seed=options.seed,
    )


def _take_turns(
    setting: Setting, arms: Mapping[str, str | None], options: argparse.Namespace
) -> tuple[dict[str, Facts], dict[str, list[Turn]]]:
    """Start every arm and let them step in turn; return what each says of itself, and its turns."""
    with ExitStack() as stack:
        running = [
            stack.enter_context(Arm(name, setting, python) if python else Arm(name, setting))
            for name, python in arms.items()
        ]
        turns = interleave(running, warm_up=options.warm_up, rounds=options.rounds)
        return {arm.name: arm.facts for arm in running}, turns


def _result(
    setting: Setting,
    facts: Mapping[str, Facts],
    turns: Mapping[str, Sequence[Turn]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    _check_same_start(turns)
    # A step of ours includes its share of reading the store; it is 0 in the others.
    seconds = {
        name: [t.seconds + facts[name].decode_seconds for t in taken[options.warm_up :]]
        for name, taken in turns.items()
    }
    over_ce = ratio(seconds["ours"], seconds["cross_entropy"])
    over_online = ratio(seconds["online"], seconds["ours"])
    over_gkd = ratio(seconds["gkd"], seconds["ours"]) if "gkd" in seconds else None
    compiled = ratio(seconds["compiled"], seconds["ours"]) if "compiled" in seconds else None
    arms = {name: _arm(setting, facts[name], turns[name], seconds[name]) for name in turns}
    gkd = arms.get("gkd", {})
    return {
        "quick": options.quick,
        "seed": setting.seed,
        "time_over_cross_entropy": over_ce[0],
        "time_over_cross_entropy_range": over_ce[1:],
        "tokens_per_s_over_gkd": over_gkd and over_gkd[0],
        "tokens_per_s_over_gkd_range": over_gkd and over_gkd[1:],
        "tokens_per_s_over_online": over_online[0],
        "compiled_over_ours": compiled,
        "compiling_seconds": turns["compiled"][0].seconds if compiled else None,
        "extra_peak_bytes": arms["ours"]["extra_peak_bytes"],
        "gkd_extra_peak_bytes": gkd.get("extra_peak_bytes"),
        "gkd_extra_peak_bytes_without_teacher": gkd.get("extra_peak_bytes_without_teacher"),
        "gkd_missing": None if gkd else _MISSING,
        "arms": arms,
        "rows": setting.rows,
        "length": setting.length,
        "positions_per_step": setting.positions,
        "rounds": options.rounds,
        "precision": setting.precision,
        "frozen_head": setting.frozen_head,
        "gkd_checkpointing": setting.gkd_checkpointing,
        "threads": facts["ours"].threads,
        "versions": {name: version(name) for name in ("torch", "transformers")}
        | {"python": platform.python_version()},
    }


def _arm(
    setting: Setting, facts: Facts, turns: Sequence[Turn], seconds: Sequence[float]
) -> dict[str, Any]:
    typical = median(seconds)
    more = extra(facts, turns)
    return {
        "seconds": typical,
        "seconds_range": (min(seconds), max(seconds)),
        "decode_seconds": facts.decode_seconds,
        "tokens_per_s": setting.positions / typical,
        "all_tokens_per_s": setting.tokens / typical,
        "extra_peak_bytes": more,
        "extra_peak_bytes_without_teacher": None if more is None else more - facts.teacher_bytes,
        "teacher_bytes": facts.teacher_bytes,
        "floor_bytes": facts.floor_bytes,
        "first_loss": turns[0].loss,
    }


def _check_same_start(turns: Mapping[str, Sequence[Turn]]) -> None:
    """Check that both dense arms compute the same loss, so that they are the same work."""
    if "gkd" not in turns:
        return
    theirs, dense = turns["gkd"][0].loss, turns["online"][0].loss
    if theirs is None or dense is None or abs(theirs - dense) > _SAME_LOSS * abs(dense):
        raise SystemExit(
            f"GKDTrainer's first loss is {theirs} and the dense arm's {dense}: not the same step"
        )


def _print_table(setting: Setting, result: Mapping[str, Any]) -> None:
    title = (
        f"{setting.rows} x {setting.length} tokens, {setting.precision}, {result['threads']} threads, "
        f"median of {result['rounds']} steps" + (" (quick: rough)" if result["quick"] else "")
    )
    table = Table("arm", title=title)
    for heading in ("s/step", "loss tokens/s", "extra peak MB", "without teacher", "first loss"):
        table.add_column(heading, justify="right")
    for name, arm in result["arms"].items():
        table.add_row(
            _NAMES[name],
            f"{arm['seconds']:.3f}",
            f"{arm['tokens_per_s']:.0f}",
            _megabytes(arm["extra_peak_bytes"]),
            _megabytes(arm["extra_peak_bytes_without_teacher"]),
            f"{arm['first_loss']:.4f}",
        )
    console = Console(width=110)
    console.print(table)
    low, high = result["time_over_cross_entropy_range"]
    print(
        f"ours takes {result['time_over_cross_entropy']:.2f}x a cross-entropy step ({low:.2f}-{high:.2f}); "
        f"{1000 * result['arms']['ours']['decode_seconds']:.0f} ms of it decode the store"
    )
    if result["compiled_over_ours"] is not None:
        took, low, high = result["compiled_over_ours"]
        print(
            f"compiled layers take {took:.2f}x ({low:.2f}-{high:.2f}), and "
            f"{result['compiling_seconds']:.0f} s for the first step"
        )
    if result["tokens_per_s_over_gkd"] is not None:
        low, high = result["tokens_per_s_over_gkd_range"]
        print(
            f"and {result['tokens_per_s_over_gkd']:.2f}x GKDTrainer's tokens/s ({low:.2f}-{high:.2f})"
        )


def _megabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e6:.0f}"


if __name__ == "__main__":
    main()
