"""The white-box copier at work: strategy after strategy against a copy of the watch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from detectors.adaptive import Price, Strategy, neighbours, search, shelled
from detectors.limbeck_watch import LIMBECK, SHIPPED, Limbeck, Shipped
from detectors.race import Detector, Trace, trace
from detectors.reader import Reader
from traffic.account import Exchange
from traffic.campaigns import campaign
from traffic.census import DAYS, accounts
from traffic.census import Plan as Census
from traffic.copier import Campaign, copy, marks
from traffic.folds import Fold
from traffic.log import by_time
from traffic.material import Material
from traffic.tactics import Pool, pool_of

from evaluation.fitting import KNOWN_SUITES
from evaluation.gain import Curve
from evaluation.plan import Plan

_QUIET = ("stream",)
_LONGEST = 2400
"""Requests of one rehearsal at the most."""
_TACTIC = 0


def rehearsals(
    plan: Plan,
    fold: Fold,
    material: Material,
    reader: Reader,
    limbeck: Limbeck,
    others: Callable[[], Sequence[Detector]],
    carried: Mapping[str, float],
) -> dict[str, list[Price]]:
    """Return every detector's prices of all strategies that a copier tried who was searching against Limbeck."""
    curve = Curve.read(plan.gain)
    prices: dict[str, list[Price]] = {name: [] for name in carried}
    ordered = _Ordered(plan, fold, material, reader)

    def rehearse(strategy: Strategy) -> Price:
        branch = limbeck.branch()
        racing = [branch, Shipped(branch), *others()]
        found = _run(plan, fold, material, reader, racing, strategy, curve, ordered)
        for name, above in carried.items():
            prices[name].append(price(strategy, found, name, above, curve))
        return prices[SHIPPED][-1]

    search(
        rehearse,
        np.random.default_rng(plan.seed),
        first=plan.strategies,
        rounds=plan.strategies // 4,
    )
    return prices


def price(strategy: Strategy, found: Trace, detector: str, above: float, curve: Curve) -> Price:
    """Return what a rehearsal cost under one detector."""
    caught = found.caught(detector, above)
    last = len(found.copied_Q) if caught is None else caught
    enough = int(np.searchsorted(found.copied_Q, curve.needed)) + 1
    last = min(last, enough) if found.copied_Q[-1] >= curve.needed else last
    seen = found.score_Q[LIMBECK if detector == SHIPPED else detector][:last]
    return Price(
        strategy,
        float(seen[-1]),
        int(found.copied_Q[last - 1]),
        last,
        curve.needed,
        caught is not None and caught <= last,
    )


class _Ordered:
    """The campaign's pool, as it comes and so that neighbours are alike."""

    def __init__(self, plan: Plan, fold: Fold, material: Material, reader: Reader) -> None:
        source = fold.tactics[_TACTIC][1]
        self.scattered = pool_of(source, material, fold.prose, plan.seed)
        items = self.scattered.items[:1500]
        order = neighbours(reader.vectors(items), plan.seed % len(items))
        self.alike = Pool(
            [items[n] for n in order], self.scattered.passages, plan.seed, in_order=True
        )


def _run(
    plan: Plan,
    fold: Fold,
    material: Material,
    reader: Reader,
    detectors: Sequence[Detector],
    strategy: Strategy,
    curve: Curve,
    ordered: _Ordered,
) -> Trace:
    made = _campaign(plan, fold, strategy, curve)
    census = Census(fold, plan.seed, {}, (made,))
    pool = ordered.alike if strategy.alike else ordered.scattered

    def dress(exchange: Exchange, pool: Pool, k: int) -> Exchange:
        kept = {name: exchange.options[name] for name in _QUIET if name in exchange.options}
        bare = Exchange(
            exchange.messages, exchange.reply, kept if strategy.quiet else exchange.options
        )
        return shelled(strategy.shell, bare, pool, k)

    who = [account for account, _ in accounts(census)]
    streams = [copy(account, made, material, pool=pool, dress=dress) for account in who]
    return trace(
        detectors,
        reader.read(by_time(streams)),
        {account.name: marks(account, made) for account in who},
    )


def _campaign(plan: Plan, fold: Fold, strategy: Strategy, curve: Curve) -> Campaign:
    asked = min(_LONGEST, int(1.1 * curve.needed / strategy.mix) + 10)
    made = campaign(
        fold,
        _TACTIC,
        accounts=strategy.accounts,
        mix=strategy.mix,
        queries=asked,
        seed=plan.seed + 500,
    )
    suite = next(name for name in fold.families["benchmark"] if name in KNOWN_SUITES)
    return replace(
        made,
        name=f"adaptive-{fold.name}",
        day=DAYS,
        linked="batch" if strategy.linked else "loose",
        cover=f"benchmark/{suite}" if strategy.exams else made.cover,
    )
