"""Does a verdict deserve its name? Coverage, false alarms and order, on real scores of real models.

    python benchmarks/validate.py [--quick] [--seed N] [--cache DIR] [--data DIR]

SmolLM2-135M-Instruct and copies of it with noise on their weights answer the built-in choice tasks, once; scores are
kept in a cache. These scores are then the population: every run draws clusters from it with replacement, so that the
truth is known exactly.

- *coverage*: how often the 95% interval holds the population's retention;
- *A/A*: teacher and student swapped at random within each cluster are the same model; how often the interval leaves 1;
- *at the margin*: the margin set to the population's retention; how often that student earns KEEPS;
- *sequential*: the same with a look after every round, and the share of rounds that a clear case needs;
- *ladder*: retention of ever more damaged students must fall;
- *contamination*: the check against labelled pairs, where ../shared/data lies beside the project.

Prints tables and one JSON object as the last line; exits with 1 where the list below it fails.
"""

import argparse
import gzip
import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from judging import licensed_judges, timing_error
from rich import box
from rich.console import Console
from rich.table import Table

from limbeck.artefact import sha256_json
from limbeck.backends import load
from limbeck.progress import Silent
from limbeck.stats import anytime
from limbeck.stats.paired import Ints, Paired
from limbeck.stats.retention import moments, retention
from limbeck.validate.asking import score_items
from limbeck.validate.builtin import DEFAULT, builtin
from limbeck.validate.contamination import find_overlaps
from limbeck.validate.controls import damaged
from limbeck.validate.local import LocalRespondent
from limbeck.validate.outcome import Outcome
from limbeck.validate.scores import ScoreBook
from limbeck.validate.tasks import Task

_ROOT = Path(__file__).resolve().parents[1]
_DATA = _ROOT.parent / "shared" / "data"
STUDENT = 0.05
"""Noise of the student whose intervals are tried, in standard deviations of each weight matrix."""
LADDER = (0.03, 0.06, 0.09, 0.15)
LADDER_ITEMS = 100
"""Items a task on the ladder."""
SIZES = (0.4, 1.0)
"""Clusters drawn, as a share of those of the population."""
MAIN = 1.0


def main() -> None:
    """Score, draw, print, and check."""
    options = _options()
    console = Console(width=100)
    if options.quick:
        console.print("quick: rough figures, few items and draws")
    limit, runs = (30, 200) if options.quick else (None, options.runs)
    tasks = [builtin(name, limit=limit) for name in DEFAULT]
    ladder = LADDER[-1:] if options.quick else LADDER
    book = ScoreBook(options.cache / _key(tasks, options))
    _score(book, tasks, options, ladder, console)
    population = [book.pair(t.name, "teacher", f"noise {STUDENT}") for t in tasks]
    found = {
        "quick": options.quick,
        "seed": options.seed,
        "items": sum(p.items for p in population),
        "subsamples": runs,
        **_draws(population, runs, options.seed, console),
        **_sequential(population, max(50, runs // 10), options.seed, console),
        **_ladder(book, tasks, ladder, console),
        **_contamination(options.data / "contamination", console),
        **_planted(options.seed, options.quick),
    }
    failed = [] if options.quick else _failed(found)
    for line in failed:
        console.print(f"FAILED: {line}")
    print(json.dumps(found))
    sys.exit(bool(failed))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few items and draws, rough")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=2000, help="subsamples")
    parser.add_argument("--teacher", default="packaged:smollm2-135m-instruct")
    parser.add_argument("--cache", type=Path, default=_ROOT / "runs" / "validate-benchmark")
    parser.add_argument("--data", type=Path, default=_DATA)
    return parser.parse_args()


# Scores.


def _key(tasks: Sequence[Task], options: argparse.Namespace) -> str:
    """Return the cache folder of these very items, teacher and seed."""
    parts = {"tasks": [t.sha256 for t in tasks], "teacher": options.teacher, "seed": options.seed}
    return sha256_json(parts)[:16]


def _score(
    book: ScoreBook,
    tasks: Sequence[Task],
    options: argparse.Namespace,
    ladder: Sequence[float],
    console: Console,
) -> None:
    """Score every model that the cache lacks."""
    wanted = {"teacher": None, f"noise {STUDENT}": STUDENT, **{f"noise {s}": s for s in ladder}}
    missing = {a: s for a, s in wanted.items() if any(not book.read(a, t.name) for t in tasks)}
    if not missing:
        console.print("scores: from the cache")
        return
    local = load(options.teacher, dtype="float32")
    for arm, strength in missing.items():
        model = local if strength is None else damaged(local, strength=strength, seed=options.seed)
        respondent = LocalRespondent(model)
        whole = arm in ("teacher", f"noise {STUDENT}")
        for task in tasks:
            few = {i.id for i in builtin(task.name, limit=LADDER_ITEMS).items}
            items = [i for i in task.items if whole or i.id in few]
            book.write(arm, task.name, score_items(task, items, respondent, Silent()))
        means = ", ".join(f"{t.name} {_mean(book.read(arm, t.name)):.3f}" for t in tasks)
        console.print(f"scored {arm}: {means}")


def _mean(rows: Sequence[Outcome]) -> float:
    return float(np.mean([o.score for o in rows]))


# Draws.


def _draws(population: Sequence[Paired], runs: int, seed: int, console: Console) -> dict[str, Any]:
    truth = _truth(population)
    table = _table(
        "Intervals on real scores",
        "share drawn",
        "items",
        "coverage",
        "too high",
        "too low",
        "A/A differs",
    )
    by_size: dict[str, Any] = {}
    for share in SIZES:
        rng = np.random.default_rng([seed, int(100 * share)])
        sizes, inside, above, below, apart, betting = [], 0, 0, 0, 0, 0
        for _ in range(runs):
            drawn = [_sample(task, share, rng) for task in population]
            found = retention(drawn)
            sizes.append(found.items)
            betting += found.method == "betting"
            if found.low is None or found.high is None:
                inside += 1  # an interval without end holds everything
            else:
                inside += found.low <= truth <= found.high
                above += found.low > truth
                below += found.high < truth
            same = retention([_swapped(task, rng) for task in drawn])
            apart += (
                same.low is not None and same.high is not None and not same.low <= 1 <= same.high
            )
        figures = {
            "items": float(np.mean(sizes)),
            "coverage": inside / runs,
            "low_end_above_truth": above / runs,
            "high_end_below_truth": below / runs,
            "aa_false_rate": apart / runs,
            "by_betting": betting / runs,
        }
        by_size[f"{share:g}"] = figures
        shown = (
            f"{figures[k]:.3f}"
            for k in ("coverage", "low_end_above_truth", "high_end_below_truth", "aa_false_rate")
        )
        table.add_row(f"{share:.0%}", f"{figures['items']:.0f}", *shown)
    console.print(f"retention of the population: {truth:.4f}")
    console.print(table)
    main_size = by_size[f"{MAIN:g}"]
    return {
        "retention": truth,
        "coverage": main_size["coverage"],
        "aa_false_rate": main_size["aa_false_rate"],
        "margin_false_keeps": max(f["low_end_above_truth"] for f in by_size.values()),
        "by_size": by_size,
    }


def _truth(population: Sequence[Paired]) -> float:
    found = moments(population, corners=False)
    return found.student / found.teacher


def _sample(task: Paired, share: float, rng: np.random.Generator) -> Paired:
    """Draw clusters with replacement; one that is drawn twice counts as two."""
    drawn = rng.integers(0, task.clusters, max(2, round(share * task.clusters)))
    members = [np.flatnonzero(task.cluster_I == g) for g in drawn]
    place_I = np.concatenate(members)
    cluster_I: Ints = np.repeat(np.arange(len(drawn)), [len(m) for m in members])
    return Paired(
        task.teacher_I[place_I], task.student_I[place_I], task.chance_I[place_I], cluster_I
    )


def _swapped(task: Paired, rng: np.random.Generator) -> Paired:
    """Swap teacher and student in half of the clusters: then neither is better."""
    swap_I = rng.integers(0, 2, task.clusters).astype(bool)[task.cluster_I]
    return Paired(
        np.where(swap_I, task.student_I, task.teacher_I),
        np.where(swap_I, task.teacher_I, task.student_I),
        task.chance_I,
        task.cluster_I,
    )


def _sequential(
    population: Sequence[Paired], runs: int, seed: int, console: Console
) -> dict[str, Any]:
    """Look after every round: false KEEPS at the margin, and how early a clear case is settled."""
    truth, limit = _truth(population), math.log(2 / 0.05)
    rng = np.random.default_rng([seed, 7])
    kept, shares = 0, []
    for _ in range(runs):
        drawn = [_sample(task, MAIN, rng) for task in population]
        played = anytime.play(anytime.schedule([t.cluster_I for t in drawn], seed=0), drawn)
        up_J, _ = anytime.evidence(played, truth)
        kept += bool(up_J.max() >= limit)
        _, down_J = anytime.evidence(played, 1.0)
        reached = np.flatnonzero(down_J >= limit)
        shares.append((reached[0] + 1 if len(reached) else len(down_J)) / len(down_J))
    share = float(np.median(shares))
    console.print(
        f"sequential, a look after every round: KEEPS at the margin {kept / runs:.3f}; against a margin of 100% "
        f"LOSES is settled after {share:.0%} of the rounds (median of {runs})\n"
    )
    return {"sequential_false_keeps": kept / runs, "sequential_rounds_used": share}


# Ladder, contamination, and what the judge half brings.


def _ladder(
    book: ScoreBook, tasks: Sequence[Task], ladder: Sequence[float], console: Console
) -> dict[str, Any]:
    table = _table("Ladder of damaged students", "noise", "retention", "interval")
    kept = [1.0]
    for strength in ladder:
        pairs = [book.pair(t.name, "teacher", f"noise {strength}") for t in tasks]
        found, plain = retention(pairs), moments(pairs, corners=False)
        kept.append(plain.student / plain.teacher)
        ends = "no end" if found.low is None else f"[{found.low:.3f}, {found.high:.3f}]"
        table.add_row(f"{strength:g}", f"{kept[-1]:.3f}", ends)
    console.print(table)
    monotone = all(later < earlier for earlier, later in itertools.pairwise(kept))
    return {
        "ladder": dict(zip(map(str, (0, *ladder)), kept, strict=True)),
        "ladder_monotone": monotone,
    }


def _contamination(folder: Path, console: Console) -> dict[str, Any]:
    """Check against pairs that another tool labelled: five shared 8-grams of symbols or more, boilerplate included."""
    if not folder.is_dir():
        console.print(f"contamination: {folder} is not there, not measured")
        return {"contamination_recall": None, "contamination_false_alarms": None}
    with gzip.open(folder / "s1k.json.gz", "rt", encoding="utf-8") as file:
        training = [(str(r["id"]), r["problem"]) for r in json.load(file)]
    dirty = [r["math500_problem"] for r in _lines(folder / "s1_c_lex.jsonl")]
    clean = [r["problem"] for r in _lines(folder / "clean_baseline.jsonl")]
    found = find_overlaps([*dirty, *clean], training)
    table = _table("Contamination", "way", "labelled pairs found", "clean ones found")
    rates: dict[str, tuple[float, float]] = {}
    for way in ("exact", "gram", "near", "found"):
        hits = [bool(getattr(o, way)) for o in found]
        rates[way] = (float(np.mean(hits[: len(dirty)])), float(np.mean(hits[len(dirty) :])))
        table.add_row(way, *(f"{rate:.3f}" for rate in rates[way]))
    console.print(table)
    return {
        "contamination_recall": rates["found"][0],
        "contamination_false_alarms": rates["found"][1],
        "contamination_ways": rates,
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _planted(seed: int, quick: bool) -> dict[str, Any]:
    """Return which planted judges get a licence, and how wrong the timing of a stub of known speed is."""
    return {
        "licensed_judges": licensed_judges(seed, quick),
        "timing_error": timing_error(seed, quick),
    }


def _failed(found: Mapping[str, Any]) -> list[str]:
    """Return what a verdict that deserves its name would not show."""
    sizes: Mapping[str, Mapping[str, float]] = found["by_size"]
    rules = {
        "at least 1,000 items": found["items"] >= 1000,
        "95% intervals cover 93 to 97%": all(0.93 <= f["coverage"] <= 0.97 for f in sizes.values()),
        "A/A is called different at most 5% of the time": found["aa_false_rate"] <= 0.05,
        "a student at the margin keeps at most 5% of the time": found["margin_false_keeps"] <= 0.05,
        "so does one that is watched": found["sequential_false_keeps"] <= 0.05,
        "the ladder falls": found["ladder_monotone"],
        "of the planted judges the oracle alone is licensed": found["licensed_judges"]
        == ["oracle"],
        "a stub is timed right within 5%": found["timing_error"] <= 0.05,
    }
    return [rule for rule, kept in rules.items() if not kept]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    return table


if __name__ == "__main__":
    main()
