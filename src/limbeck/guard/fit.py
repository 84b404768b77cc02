"""Learns what evidence is weighed with from a labelled log, and checks its own guarantee on families it has not seen."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.artefact import sha256_file, sha256_json
from limbeck.errors import GuardError
from limbeck.guard.evidence import scorers as learned
from limbeck.guard.evidence.calibration import KINDS, Calibration, Scorer
from limbeck.guard.evidence.check import Check, accused, check, limits, margins
from limbeck.guard.evidence.conformal import Doubles, lacking, smallest_alpha
from limbeck.guard.evidence.history import Histories, Recorder
from limbeck.guard.evidence.labels import COMPOSED, Labels, label
from limbeck.guard.evidence.ranking import Peaks, rank
from limbeck.guard.evidence.units import composed, natural_groups, train_units
from limbeck.guard.observation import Observation
from limbeck.guard.policy import Memory, Policy
from limbeck.guard.score import Truth, read_truth
from limbeck.guard.signals.links import links
from limbeck.guard.signals.suite import Suite
from limbeck.guard.traffic import log_files, read_log
from limbeck.guard.watch import Watch

RIVALS = ("chat", "pipeline", "benchmark", "agent")
"""The honest rivals that have to be beaten by name."""
STEEPNESS = 4.0
"""Of the weight of honest scores: one spread above all of them is worth a factor of e^4."""
LEAST_ROWS = 24
"""Rows of clusters from which they teach; with fewer, accounts stand in for them."""

Part = tuple[Doubles, Doubles, Doubles]


@dataclass(frozen=True, slots=True)
class Learned:
    """By kind: the parts of a scorer against each rival, and the caps that they share."""

    parts: Mapping[str, Sequence[Part]]
    cap_JF: Mapping[str, Doubles]

    def scorers(self) -> dict[str, Scorer]:
        """Put them together."""
        return {kind: learned.stack(self.parts[kind], self.cap_JF[kind]) for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides a calibration besides the log."""

    alpha: float = 0.001
    """The promise: false accusations at the most, in every honest class."""
    rivals: tuple[str, ...] = RIVALS
    share: float = 0.2
    """Share of the honest units that weights are learned from; the others calibrate."""
    least: int = 40
    """Units of a class to learn from at the least, up to half of it."""
    seed: int = 0


def fit(
    log: Path, truth: Path, plan: Plan, *, secret: bytes, suites: Sequence[Suite] = ()
) -> Calibration:
    """Fit a calibration on a labelled log.

    Raises:
        GuardError: The log or truth cannot be read; there is one class only; or so few honest accounts that the
            promise cannot be kept, with how many are lacking.
    """
    truths = read_truth(truth)
    histories, labels = record(lambda: read_log(log), truths, plan, secret=secret, suites=suites)
    found = calibrate(histories, labels, plan)
    source = {"log_sha256": _hash_of(log), "truth_sha256": sha256_file(truth), "seed": plan.seed}
    return replace(found, report={**found.report, **source})


def _hash_of(log: Path) -> str:
    """The hash of a log's file, or over those of a folder's files."""
    if not log.is_dir():
        return sha256_file(log)
    return sha256_json([[one.name, sha256_file(one)] for one in log_files(log)])


def record(
    again: Callable[[], Iterable[Observation]],
    truths: Mapping[str, Truth],
    plan: Plan,
    *,
    secret: bytes,
    suites: Sequence[Suite] = (),
) -> tuple[Histories, Labels]:
    """Run a log through a watch that only takes down, and say who its accounts and clusters are.

    Args:
        again: Returns the observations, each time from the start.
        truths: Who is who.
        plan: Which accounts are learned from.
        secret: As of `Watch`.
        suites: As of `Watch`.

    Raises:
        GuardError: An account is not in `truths`, or a class that is needed is missing.
    """
    group = natural_groups(again())
    absent = next((name for name in group if name not in truths), None)
    if absent is not None:
        raise GuardError(
            f"account {absent!r} is not in the truth table; it needs one line per account"
        )
    _refuse_missing([truths[name] for name in group], plan)
    trained = train_units(group, truths, share=plan.share, least=plan.least, seed=plan.seed)
    together = composed(group, truths, trained, seed=plan.seed)
    memory = Memory(accounts=len(group) + 1, clusters=8 * len(group) + 1)
    recorder = Recorder()
    watch = Watch(Policy(memory=memory), secret=secret, suites=suites, recorder=recorder)
    requests: dict[str, int] = {}
    members: dict[str, dict[str, None]] = {}
    for observation in again():
        name = observation.account
        requests[name] = requests.get(name, 0) + 1
        if name in together and "group" not in observation.attributes:
            grouped = {**observation.attributes, "group": COMPOSED + together[name]}
            observation = replace(observation, attributes=grouped)
        for _, link in links(observation):
            members.setdefault(link, {}).setdefault(name)
        watch.observe(observation)
    histories = recorder.histories(tuple(group))
    inside = {cluster: tuple(members[cluster]) for cluster in histories.clusters}
    return histories, label(histories, truths, group, trained, requests, inside)


def calibrate(histories: Histories, labels: Labels, plan: Plan) -> Calibration:
    """Learn, rank and check.

    Raises:
        GuardError: A rival has too few honest units for the promise; says how many are lacking.
    """
    joined = _join(histories, labels, plan)
    known = _learn(histories, labels, joined, plan.seed)
    scorers = known.scorers()
    peaks = Peaks.of(histories, scorers, labels)
    _refuse_single_families(labels, joined)
    honest = rank(peaks, labels, joined)
    units = [len(peak_N) for peak_N in honest]
    _refuse_too_few(dict(zip(joined, units, strict=True)), plan)

    def refit(family: int) -> Mapping[str, Scorer]:
        return _learn(histories, labels, joined, plan.seed, without=family, known=known).scorers()

    def limits_of(peaks: tuple[Doubles, ...]) -> Doubles:
        return limits(peaks, units, STEEPNESS, plan.alpha)

    checks = check(histories, labels, joined, refit, limits_of)
    margin = margins(checks, len(labels.ways))
    return Calibration(
        rivals=tuple(joined),
        scorers={kind: replace(scorers[kind], margin_J=margin[kind]) for kind in KINDS},
        peaks=honest,
        steepness=STEEPNESS,
        horizon=int(labels.requests_A[labels.honest_A].max()),
        alpha=plan.alpha,
        report=_report(labels, joined, units, checks, margin, peaks, limits_of(honest)),
    )


def _join(histories: Histories, labels: Labels, plan: Plan) -> dict[str, tuple[str, ...]]:
    """Rival to the classes that stand for it.

    A class that is not named becomes a rival of its own where it has the units for the promise and the families to check
    it on; otherwise it joins the named rival that explains it best.
    """
    joined: dict[str, tuple[str, ...]] = {name: (name,) for name in plan.rivals}
    scorers = _learn(histories, labels, joined, plan.seed).scorers()
    alone_ARJ = Peaks.of(histories, scorers, labels).alone_ARJ
    for kind in (k for k in labels.kinds if k not in plan.rivals):
        chosen_A = np.isin(labels.family_A, labels.families_of([kind]))
        units = len(np.unique(labels.unit_A[chosen_A & ~labels.trained_A]))
        if lacking(units, plan.alpha) == 0 and _has_families(labels, [kind]):
            joined[kind] = (kind,)
        else:
            median_R = np.median(alone_ARJ[chosen_A].max(axis=2), axis=0)
            rival = plan.rivals[int(median_R.argmin())]
            joined[rival] = (*joined[rival], kind)
    return joined


def _learn(
    histories: Histories,
    labels: Labels,
    joined: Mapping[str, Sequence[str]],
    seed: int,
    *,
    without: int | None = None,
    known: Learned | None = None,
) -> Learned:
    """Learn against every rival; with `known`, anew only against the rival that a left-out family belongs to."""
    own, shared = histories.own, histories.shared
    copying = [own.of(labels.family_A == way) for way in labels.ways]
    pooled = [shared.of(labels.family_C == way) for way in labels.ways]
    pooled = [
        p if len(p.owner_N) >= LEAST_ROWS else c for p, c in zip(pooled, copying, strict=True)
    ]
    parts: dict[str, list[Part]] = {kind: [] for kind in KINDS}
    for r, kinds in enumerate(joined.values()):
        families = labels.families_of(kinds)
        if known is not None and without not in families:
            for kind in KINDS:
                parts[kind].append(known.parts[kind][r])
            continue
        families = [family for family in families if family != without]
        rival_A = np.isin(labels.family_A, families) & labels.trained_A
        rival_C = np.isin(labels.family_C, families) & labels.trained_C
        parts["own"].append(learned.against(own, labels.family_A, rival_A, copying, seed=seed))
        enough = rival_C[shared.owner_N].sum() >= LEAST_ROWS
        rows, family_O, rival_O = (
            (shared, labels.family_C, rival_C) if enough else (own, labels.family_A, rival_A)
        )
        parts["shared"].append(learned.against(rows, family_O, rival_O, pooled, seed=seed))
    return Learned(parts, {"own": learned.caps(copying), "shared": learned.caps(pooled)})


def _refuse_missing(truths: Sequence[Truth], plan: Plan) -> None:
    honest = {truth.kind for truth in truths if not truth.guilty}
    if len(honest) < 2:
        raise GuardError(
            f"the log has {len(honest)} honest class, so nothing can be told from anything; it needs {', '.join(plan.rivals)}"
        )
    if not any(truth.guilty for truth in truths):
        raise GuardError("the log has no account of class copier, so there is nothing to look for")
    missing = [name for name in plan.rivals if name not in honest]
    if missing:
        raise GuardError(
            f"the log has no honest account of class {missing[0]}; name the rivals that can be promised with --rival"
        )


def _has_families(labels: Labels, kinds: Sequence[str]) -> bool:
    """Every family is held out whole once; the others of its rival must have histories to rank among."""
    calibrating_A = np.isin(labels.family_A, labels.families_of(kinds)) & ~labels.trained_A
    return len(np.unique(labels.family_A[calibrating_A])) >= 2


def _refuse_single_families(labels: Labels, joined: Mapping[str, Sequence[str]]) -> None:
    for rival, kinds in joined.items():
        if not _has_families(labels, kinds):
            raise GuardError(
                f"class {rival} has fewer than two families with accounts to calibrate on, so that its promise cannot be checked "
                "on one that is held out; name the source of each account in the truth's column `family`, or leave "
                "this rival out with --rival"
            )


def _refuse_too_few(units: Mapping[str, int], plan: Plan) -> None:
    short = {name: lacking(n, plan.alpha) for name, n in units.items()}
    if not any(short.values()):
        return
    told = "; ".join(f"{name} has {units[name]} and lacks {n}" for name, n in short.items() if n)
    least = max(smallest_alpha(n) for n in units.values())
    raise GuardError(
        f"alpha = {plan.alpha:g} takes {lacking(0, plan.alpha)} honest histories to calibrate each rival on: {told}. "
        f"This log supports alpha = {least:.4g}"
    )


def _report(
    labels: Labels,
    joined: Mapping[str, Sequence[str]],
    units: Sequence[int],
    checks: Sequence[Check],
    margin: Mapping[str, Doubles],
    peaks: Peaks,
    limit_R: Doubles,
) -> dict[str, Any]:
    watched = {"own": peaks.alone_ARJ, "shared": peaks.natural_ARJ}
    ways = {}
    for j, way in enumerate(labels.ways):
        chosen_A = labels.family_A == way
        seen, unseen = (accused(watched, margin, limit_R, but)[chosen_A] for but in (None, j))
        ways[labels.families[way]] = {
            "accounts": int(chosen_A.sum()),
            "accused": int(seen.sum()),
            "accused_unseen": int(unseen.sum()),
            "margin_own": round(float(margin["own"][j]), 3),
            "margin_shared": round(float(margin["shared"][j]), 3),
        }
    return {
        "rivals": {
            name: {"classes": list(kinds), "units": n, "smallest_alpha": smallest_alpha(n)}
            for (name, kinds), n in zip(joined.items(), units, strict=True)
        },
        "held_out": {
            one.family: {"accounts": one.accounts, "accused_before_margin": one.accused}
            for one in checks
        },
        "ways": ways,
        "families": len(labels.kind_of),
    }
