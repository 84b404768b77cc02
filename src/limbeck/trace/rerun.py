"""Compute a run again: from the log-likelihoods of its coins to its verdict, and compare with what its report says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.errors import TraceError
from limbeck.ledger.encoding import field
from limbeck.ledger.note import PublicKey
from limbeck.stats.coins import first_crossing, log_e_path, threshold
from limbeck.trace.coins import Coin
from limbeck.trace.leans import leans
from limbeck.trace.registration import STATISTIC, Registration, read_named

_CLOSE = 1e-6
"""Nats by which sums of another machine may differ."""
_DRAWN = 1e-3
_LARGEST = 700.0
"""Of a log e-value, for its exponential to be a number."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the notes of a bundle say, which its reports must repeat."""

    root: str
    """Over hashes and bits."""
    key: PublicKey
    committed: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One examination, computed again."""

    number: int
    suspect: str
    identity: str
    accounts: tuple[str, ...]
    """Empty where the coins of all were used."""
    coins: int
    """Coins used."""
    at_hand: int
    log_e: float
    """The largest log e-value up to the stop."""
    crossing: int | None
    """After how many coins the e-value reached the threshold."""

    @property
    def distilled(self) -> bool:
        """Say whether the verdict is "distilled"; if not, it is "not shown" or "undecided", never "not distilled"."""
        return self.crossing is not None


@dataclass(frozen=True, slots=True)
class Scores:
    """Leans of the coins that were scored, in nats."""

    suspect: list[float]
    references: list[list[float]]
    """For each coin those of the references."""


def rerun(report: Any, number: int, plan: Registration, coins: Sequence[Coin], facts: Facts) -> Run:
    """Return a run as it comes out.

    Args:
        report: What `limbeck trace audit` wrote.
        number: Of the run, from 1.
        plan: The registration; the run must have been made as it says.
        coins: All registered coins, in order.
        facts: What the notes say.

    Raises:
        LedgerError: The report lacks a field or has another type in it.
        TraceError: It was not made as registered, or something else comes out.
    """
    name = f"run-{number}.json"
    suspect = read_named(field(report, "suspect", dict, name), name)
    if plan.candidates and suspect.name not in plan.candidates:
        raise TraceError(f"{name} is about {suspect.name}, which was not registered as a candidate")
    accounts = tuple(str(a) for a in field(report, "audited_accounts", list, name))
    _check_plan(report, plan, accounts, name)
    chosen = [c for c in coins if not accounts or c.pair.account in accounts]
    scores = _scores(report, plan, chosen, name)
    d = leans(scores.suspect, scores.references, plan.weights)
    _check_d(field(report, "items", list, name), d, name)
    bits = [c.bit for c in chosen[: len(d)]]
    path = list(log_e_path(zip(bits, d, strict=True), plan.bets))
    crossing = first_crossing(path, plan.alpha_each)
    run = Run(
        number,
        suspect.name,
        suspect.identity,
        accounts,
        len(path),
        len(chosen),
        max(path),
        crossing,
    )
    _check_told(report, run, path, name)
    _check_agreement(report, bits, d, name)
    _check_facts(report, facts, name)
    _check_accounts(report, plan, chosen, scores, name)
    return run


def _check_plan(
    report: Mapping[str, Any], plan: Registration, accounts: Sequence[str], name: str
) -> None:
    """Check that a run was made as registered: level, statistic, references, accounts."""
    alpha = field(report, "alpha", float, name)
    if not math.isclose(alpha, plan.alpha_each, rel_tol=1e-9):
        raise TraceError(
            f"{name} was judged at alpha = {alpha:g}, but {plan.alpha:g} was registered for {plan.tests} tests: "
            f"{plan.alpha_each:g} each"
        )
    told = field(report, "statistic", dict, name)
    if plan.statistic != STATISTIC or told.get("name") != STATISTIC:
        raise TraceError(
            f"{name} uses the statistic {told.get('name')!r}; {STATISTIC!r} can be verified"
        )
    if told.get("weights") != plan.weights or told.get("bets") != list(plan.bets):
        raise TraceError(f"{name} uses other weights or bets than were registered")
    references = tuple(read_named(r, name) for r in field(report, "references", list, name))
    if [r.identity for r in references] != [r.identity for r in plan.references]:
        raise TraceError(f"{name} uses other references than were registered")
    if accounts and not (plan.by_account and len(accounts) == 1):
        raise TraceError(
            f"{name} is about the accounts {', '.join(accounts)}, which was not registered"
        )


def _scores(
    report: Mapping[str, Any], plan: Registration, coins: Sequence[Coin], name: str
) -> Scores:
    """Return the leans, of the registered coins from the first on."""
    items = field(report, "items", list, name)
    if not items or len(items) > len(coins):
        raise TraceError(f"{name} scored {len(items)} coins of {len(coins)}")
    scores = Scores([], [])
    for place, (item, coin) in enumerate(zip(items, coins, strict=False), start=1):
        what = f"coin {place} of {name}"
        if field(item, "hash", str, what) != coin.pair.hash.hex():
            raise TraceError(
                f"{what} is not the {place}th registered coin: one was left out, added or moved"
            )
        if field(item, "bit", int, what) != coin.bit:
            raise TraceError(f"{what} has another bit than the coin file")
        rows = field(item, "references", list, what)
        if len(rows) != len(plan.references):
            raise TraceError(f"{what} has {len(rows)} references, not {len(plan.references)}")
        scores.suspect.append(_lean(field(item, "suspect", list, what), what))
        scores.references.append([_lean(row, what) for row in rows])
    return scores


def _lean(pair: Any, what: str) -> float:
    numbers = pair if isinstance(pair, list) else []
    if len(numbers) != 2 or not all(type(x) is float and math.isfinite(x) for x in numbers):
        raise TraceError(
            f"{what} must have two finite log-likelihoods for each model, got {pair!r}"
        )
    return numbers[1] - numbers[0]


def _check_d(items: Sequence[Any], d: Sequence[float], name: str) -> None:
    for place, (item, value) in enumerate(zip(items, d, strict=True), start=1):
        told = field(item, "d", float, f"coin {place} of {name}")
        if not _same(told, value):
            raise TraceError(f"coin {place} of {name} says d = {told:g}, but {value:g} comes out")


def _same(told: float, value: float) -> bool:
    return math.isclose(told, value, rel_tol=_CLOSE, abs_tol=_CLOSE)


def _check_told(report: Mapping[str, Any], run: Run, path: Sequence[float], name: str) -> None:
    """Check that the report says what comes out."""
    figures = {
        "coins_used": float(run.coins),
        "coins_at_hand": float(run.at_hand),
        "log_e_value": path[-1],
        "peak_log_e_value": run.log_e,
        "e_value": math.exp(min(path[-1], _LARGEST)),
    }
    for what, value in figures.items():
        told = report.get(what)
        if not isinstance(told, int | float) or not _same(told, value):
            raise TraceError(f"{name} says {what} = {told!r}, but {value:g} comes out")
    drawn = field(report, "path", list, name)
    if len(drawn) != len(path) or any(
        type(a) is not float or abs(a - b) > _DRAWN for a, b in zip(drawn, path, strict=True)
    ):
        raise TraceError(f"{name} draws another path of the e-value than comes out")
    if report.get("crossing", "nothing") != run.crossing:
        raise TraceError(
            f"{name} says crossing = {report.get('crossing')!r}, but {run.crossing} comes out"
        )
    verdicts = {"distilled"} if run.distilled else {"not shown", "undecided"}
    if report.get("verdict") not in verdicts:
        raise TraceError(
            f"{name} gives the verdict {report.get('verdict')!r}, but the evidence is "
            f"e = {math.exp(min(run.log_e, 700)):.4g} of {math.exp(threshold(report['alpha'])):.4g} needed"
        )


def _check_agreement(
    report: Mapping[str, Any], bits: Sequence[int], d: Sequence[float], name: str
) -> None:
    """Check the share of coins whose d points to the answer that was served, ties left out."""
    signs = [(lean > 0) == bool(bit) for lean, bit in zip(d, bits, strict=True) if lean != 0]
    told = field(report, "agreement", dict, name)
    share = sum(signs) / max(1, len(signs))
    if told.get("n") != max(1, len(signs)) or not _same(field(told, "value", float, name), share):
        raise TraceError(f"{name} says agreement = {told.get('value')!r}, but {share:g} comes out")


def _check_facts(report: Mapping[str, Any], facts: Facts, name: str) -> None:
    """Check that the report is about these coins and this teacher."""
    told = field(report, "coins", dict, name)
    if (told.get("root"), told.get("signed_by")) != (facts.root, str(facts.key)):
        raise TraceError(f"{name} is about other coins than the bundle holds")
    if report.get("teacher") != facts.committed.get("teacher"):
        raise TraceError(f"{name} names another teacher than was committed to")


def _check_accounts(
    report: Mapping[str, Any], plan: Registration, coins: Sequence[Coin], scores: Scores, name: str
) -> None:
    """Check which accounts the report says leaked: e-BH over the e-values of all accounts at the run's level."""
    told = report.get("accounts")
    if told is None:
        return
    if not plan.by_account:
        raise TraceError(f"{name} says which account leaked, which was not registered")
    e_values = _by_account(plan, coins, scores)
    rows = {
        field(row, "name", str, name): field(row, "e_value", float, name)
        for row in field(told, "tested", list, name)
    }
    if rows.keys() != e_values.keys() or not all(
        math.isclose(rows[who], e, rel_tol=1e-5) for who, e in e_values.items()
    ):
        raise TraceError(f"{name} has other e-values of accounts than come out")
    found = found_by_e_bh(e_values, plan.alpha_each)
    claimed = field(told, "found", list, name)
    if set(claimed) != found or {r["name"] for r in told["tested"] if r.get("found")} != found:
        raise TraceError(
            f"{name} says that the accounts {', '.join(map(str, claimed)) or 'none'} leaked, but "
            f"{', '.join(sorted(found)) or 'none'} comes out"
        )


def _by_account(plan: Registration, coins: Sequence[Coin], scores: Scores) -> dict[str, float]:
    places: dict[str, list[int]] = {}
    for place in range(len(scores.suspect)):
        places.setdefault(coins[place].pair.account, []).append(place)
    e_values: dict[str, float] = {}
    for account, mine in places.items():
        d = leans(
            [scores.suspect[p] for p in mine], [scores.references[p] for p in mine], plan.weights
        )
        path = list(log_e_path(zip((coins[p].bit for p in mine), d, strict=True), plan.bets))
        e_values[account] = math.exp(min(path[-1], _LARGEST))
    return e_values


def found_by_e_bh(e_values: Mapping[str, float], alpha: float) -> set[str]:
    """Return what e-BH finds at a false discovery rate of alpha (Wang and Ramdas, JRSS B 84, 2022)."""
    names = sorted(e_values, key=lambda name: -e_values[name])
    enough = [
        k for k, name in enumerate(names, start=1) if e_values[name] * k * alpha >= len(names)
    ]
    return set(names[: max(enough, default=0)])
