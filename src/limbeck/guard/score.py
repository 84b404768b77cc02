"""Decisions held against the truth: who was accused, by class; how soon each campaign was."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from limbeck.errors import GuardError
from limbeck.guard.decision import Action

GUILTY = "copier"
COLUMNS = ("account", "class", "campaign", "family")


@dataclass(frozen=True, slots=True)
class Truth:
    """Who an account is: an honest class, or `copier` with its campaign; `family` is held out as a whole."""

    kind: str
    campaign: str
    family: str

    @property
    def guilty(self) -> bool:
        """Whether the account copies."""
        return self.kind == GUILTY


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How many accounts of one class were accused; the bound is exact, two-sided 95%."""

    accounts: int
    accused: int
    upper_bound: float
    families: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Family to (accused, accounts)."""

    @property
    def rate(self) -> float:
        """Share accused."""
        return self.accused / self.accounts


@dataclass(frozen=True, slots=True)
class CampaignScore:
    """How many requests a campaign made, over all its accounts, before it was noticed."""

    family: str
    accounts: int
    requests: int
    accused: int
    queries_to_detection: int | None
    queries_to_half: int | None

    @property
    def caught(self) -> bool:
        """Whether any of its accounts was accused."""
        return self.queries_to_detection is not None


@dataclass(frozen=True, slots=True)
class Score:
    """The tables of a replay; the worst honest class first."""

    classes: Mapping[str, ClassScore]
    campaigns: Mapping[str, CampaignScore]

    def as_json(self) -> dict[str, Any]:
        """Return the last line of `limbeck guard score`."""
        return {
            "classes": {
                name: {
                    "accounts": of.accounts,
                    "accused": of.accused,
                    "upper_bound": of.upper_bound,
                }
                for name, of in self.classes.items()
            },
            "campaigns": {
                name: {
                    "caught": of.caught,
                    "queries_to_detection": of.queries_to_detection,
                    "queries_to_half": of.queries_to_half,
                    "accounts": of.accounts,
                    "accused": of.accused,
                    "family": of.family,
                }
                for name, of in self.campaigns.items()
            },
        }


def read_truth(path: Path) -> dict[str, Truth]:
    """Read a truth table; docs/traffic-format.md has its columns.

    Raises:
        GuardError: It is missing, lacks a column, names an account twice, or leaves a class empty; names the line.
    """
    truths: dict[str, Truth] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            absent = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if absent:
                raise GuardError(
                    f"{path} lacks the column {absent[0]}; it needs {','.join(COLUMNS)}"
                )
            for row in rows:
                _add(truths, row, f"{path} line {rows.line_num}")
    except OSError as error:
        raise GuardError(f"truth table {path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise GuardError(f"truth table {path} is no CSV in UTF-8: {error}") from None
    if not truths:
        raise GuardError(f"truth table {path} names no account")
    return truths


def read_decisions(path: Path) -> Iterable[tuple[str, Action]]:
    """Yield (account, action) of every line that a replay wrote.

    Raises:
        GuardError: The file is missing or a line is no decision; names the line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _decision(line, f"{path} line {number}")
    except OSError as error:
        raise GuardError(f"decisions {path} cannot be read: {error.strerror or error}") from None


def tally(
    decisions: Iterable[tuple[str, Action]],
    truths: Mapping[str, Truth],
    *,
    accused_from: Action = Action.CHALLENGE,
) -> Score:
    """Count accusations by class and by campaign.

    Raises:
        GuardError: An account that decided nothing is known of, or no decision at all.
    """
    accused: dict[str, bool] = {}
    races: dict[str, _Race] = {}
    for account, action in decisions:
        truth = truths.get(account)
        if truth is None:
            raise GuardError(
                f"account {account!r} is not in the truth table; it needs one line per account"
            )
        guilty = action >= accused_from
        accused[account] = accused.get(account, False) or guilty
        if truth.guilty:
            races.setdefault(_campaign(account, truth), _Race(truth.family)).step(account, guilty)
    if not accused:
        raise GuardError("there are no decisions to score")
    classes = _by_class(accused, truths)
    honest = sorted(
        (k for k in classes if k != GUILTY),
        key=lambda k: (-classes[k].rate, -classes[k].upper_bound),
    )
    ordered = [*honest, *([GUILTY] if GUILTY in classes else [])]
    return Score(
        {kind: classes[kind] for kind in ordered},
        {name: races[name].finish() for name in sorted(races)},
    )


@dataclass(slots=True)
class _Race:
    """A campaign's requests, counted until it is accused."""

    family: str
    requests: int = 0
    seen: set[str] = field(default_factory=set)
    accused: set[str] = field(default_factory=set)
    first: int | None = None
    half: int | None = None

    def step(self, account: str, guilty: bool) -> None:
        self.requests += 1
        self.seen.add(account)
        if not guilty:
            return
        self.accused.add(account)
        if self.first is None:
            self.first = self.requests
        if self.half is None and 2 * len(self.accused) >= len(self.seen):
            self.half = self.requests

    def finish(self) -> CampaignScore:
        return CampaignScore(
            self.family, len(self.seen), self.requests, len(self.accused), self.first, self.half
        )


def _by_class(accused: Mapping[str, bool], truths: Mapping[str, Truth]) -> dict[str, ClassScore]:
    from limbeck.stats.proportion import clopper_pearson

    families: dict[str, dict[str, tuple[int, int]]] = {}
    for account, guilty in accused.items():
        truth = truths[account]
        of = families.setdefault(truth.kind, {})
        hit, total = of.get(truth.family, (0, 0))
        of[truth.family] = (hit + guilty, total + 1)
    scores: dict[str, ClassScore] = {}
    for kind, of in families.items():
        hit, total = (sum(pair[i] for pair in of.values()) for i in (0, 1))
        scores[kind] = ClassScore(
            total, hit, clopper_pearson(hit, total).high, dict(sorted(of.items()))
        )
    return scores


def _campaign(account: str, truth: Truth) -> str:
    """A copier without a campaign is one of its own."""
    return truth.campaign or f"account {account}"


def _add(truths: dict[str, Truth], row: Mapping[str, str | None], where: str) -> None:
    account = row["account"] or ""
    kind = row["class"] or ""
    if not account or not kind:
        raise GuardError(f"{where}: `account` and `class` must not be empty")
    if account in truths:
        raise GuardError(f"{where}: account {account!r} is named twice")
    if row["campaign"] and kind != GUILTY:
        raise GuardError(
            f"{where}: account {account!r} has the campaign {row['campaign']!r} but the honest class {kind!r}"
        )
    truths[account] = Truth(kind, row["campaign"] or "", row["family"] or "")


def _decision(line: bytes, where: str) -> tuple[str, Action]:
    try:
        values = orjson.loads(line)
        return str(values["account"]), Action[str(values["action"]).upper()]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        known = ", ".join(action.name.lower() for action in Action)
        raise GuardError(
            f"{where}: a decision needs `account` and an `action` of {known}"
        ) from None
