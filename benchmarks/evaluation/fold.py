"""One direction: fit on the families of one fold, judge on those of the other."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from detectors.adaptive import Price
from detectors.limbeck_watch import ACCUSED, SHIPPED, Limbeck, Shipped
from detectors.mmd import Mmd
from detectors.nearest import Prada, Seat
from detectors.race import Detector, Trace, peaks, trace
from detectors.reader import Reader
from detectors.texts import Source, Unmimic
from detectors.threshold import threshold
from detectors.volume import RateLimit, Volume
from rich.console import Console
from traffic.census import Plan as Census
from traffic.census import accounts
from traffic.copier import marks
from traffic.folds import Fold
from traffic.log import merged
from traffic.material import Material

from evaluation.control import Control, control
from evaluation.fitting import Fitted, Operated, fit, open_limbeck, replay_and_score
from evaluation.plan import BUDGETS, Entry, Plan, entries, fit_census, honest_census, mixed_census
from evaluation.reading import make_reader
from evaluation.rehearsal import rehearsals


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What one direction found."""

    fold: str
    """The fold that judged."""
    fitted: Fitted
    operated: Operated
    kind: Mapping[str, str]
    """Honest account to its class."""
    family: Mapping[str, str]
    declared: frozenset[str]
    """Honest accounts whose use was declared."""
    peak: Mapping[str, Mapping[str, float]]
    """Detector to honest account to its highest score, on the judging fold."""
    above: Mapping[str, Mapping[float, float]]
    """Detector to budget to the threshold that keeps it on the judging fold."""
    carried: Mapping[str, float]
    """Detector to the threshold that kept 0.1% of every class on the fold that was fitted on; Limbeck has its own, 1/alpha."""
    traces: Sequence[tuple[Entry, Trace]]
    prices: Mapping[str, Sequence[Price]]
    """Detector to what each strategy of the white-box copier cost; he was searching against Limbeck."""
    control: Control
    seconds: Mapping[str, float]
    rate: float
    """Requests a second through Limbeck's watch, on one core."""


def judge(
    plan: Plan, fitting: Fold, judging: Fold, material: Material, console: Console
) -> FoldResult:
    """Fit, replay, and run everything that is compared."""
    clock = Stopwatch(console, judging.name)
    folder = plan.work / f"{fitting.name}-{judging.name}"
    fitted = fit(fit_census(plan, fitting), material, folder, alpha=plan.alpha)
    clock.lap("fit")
    operated = replay_and_score(mixed_census(plan, judging), material, fitted, folder)
    clock.lap("mixed log")
    with ExitStack() as stack:
        reader = make_reader(plan, fitting, material, stack)
        carried = _carried(plan, fitting, material, reader)
        clock.lap("thresholds of the baselines")
        census = honest_census(plan, judging)
        limbeck = open_limbeck(fitted)
        racing = [limbeck, Shipped(limbeck), *baselines(plan, reader)]
        peak = peaks(racing, reader.read(merged(census, material)))
        clock.lap("honest accounts")
        who = {account.name: account for account, _ in accounts(census)}
        kind = {name: account.kind for name, account in who.items()}
        family = {name: account.family for name, account in who.items()}
        above = {
            name: {b: threshold(scores, kind, b) for b in BUDGETS} for name, scores in peak.items()
        }
        carried[SHIPPED] = ACCUSED
        above[SHIPPED] = dict.fromkeys(BUDGETS, ACCUSED)
        traces = list(_traces(plan, judging, material, reader, limbeck))
        clock.lap("campaigns")
        prices = rehearsals(
            plan, judging, material, reader, limbeck, lambda: baselines(plan, reader), carried
        )
        clock.lap("white-box copier")
    found = control(plan, fitting, judging, material, folder)
    clock.lap("artefact control")
    declared = frozenset(name for name, account in who.items() if account.declared_use)
    rate = operated.lines / operated.replay_seconds
    return FoldResult(
        judging.name, fitted, operated, kind, family, declared, peak, above, carried, traces, prices, found, clock.laps, rate
    )  # fmt: skip


class Stopwatch:
    """Says what is done and how long it took."""

    def __init__(self, console: Console, fold: str) -> None:
        self.laps: dict[str, float] = {}
        self._console, self._fold, self._since = console, fold, time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.laps[name] = now - self._since
        self._since = now
        self._console.print(
            f"judging {self._fold}: {name} {self.laps[name]:.0f} s", highlight=False
        )


def baselines(plan: Plan, reader: Reader) -> list[Detector]:
    """Return what Limbeck is compared with, each with an empty memory."""
    found: list[Detector] = [RateLimit(), Volume(), Prada(), Seat()]
    found += [Mmd(window, reader.population_ND, seed=plan.seed) for window in (100, 1500)]
    return [*found, *([Unmimic()] if plan.unmimic else []), Source()]


def _carried(plan: Plan, fold: Fold, material: Material, reader: Reader) -> dict[str, float]:
    census = honest_census(plan, fold)
    kind = {account.name: account.kind for account, _ in accounts(census)}
    found = peaks(baselines(plan, reader), reader.read(merged(census, material)))
    return {name: threshold(scores, kind, BUDGETS[0]) for name, scores in found.items()}


def _traces(
    plan: Plan, fold: Fold, material: Material, reader: Reader, limbeck: Limbeck
) -> Iterator[tuple[Entry, Trace]]:
    for entry in entries(plan, fold):
        census = Census(fold, plan.seed, {}, (entry.campaign,))
        copies = {account.name: marks(account, entry.campaign) for account, _ in accounts(census)}
        branch = limbeck.branch()
        racing = [branch, Shipped(branch), *baselines(plan, reader)]
        yield entry, trace(racing, reader.read(merged(census, material)), copies)
