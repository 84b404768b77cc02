"""A likeness between a suspect and a teacher, and how often models that never learned from the answers are as alike.

Two populations say how often: the references of the audit at hand, and models of known lineage that `benchmarks/trace_kinship.py`
made, compared and wrote down in `likeness.json`. Each rate is a count with its exact interval. None enters the verdict.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from limbeck.stats.proportion import clopper_pearson

FORMAT = "limbeck.likeness/1"
REFERENCES = "references of this audit"
_SLACK = 1e-9
"""Likenesses of one model on two machines differ in the last places."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How many models of a population are at least as alike."""

    among: str
    """Whom it was counted on."""
    learned: bool
    """Whether these models did learn from what was served; if not, this is an error rate."""
    alike: int
    of: int
    low: float
    """Lower end of the exact two-sided 95% interval (Clopper-Pearson)."""
    high: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One likeness, labelled."""

    name: str
    value: str
    means: str
    """What it can mean, the innocent explanations included."""
    error_rate: str
    """What is known of its error rate without counting."""
    likeness: float | None = None
    """A number that is larger for models that are more alike; None where nothing was compared."""
    measured: tuple[Rate, ...] = ()
    """How often other models are as alike, counted."""


@dataclass(frozen=True, slots=True)
class Population:
    """Models of known lineage with how alike each is to the teacher."""

    name: str
    learned: bool
    likeness: Mapping[str, Sequence[float]]
    """By finding."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What the benchmark found, with what it was found on."""

    command: str
    models: str
    populations: tuple[Population, ...]


def rate(likeness: float, others: Sequence[float], *, among: str, learned: bool = False) -> Rate:
    """Count how many of a population are at least as alike.

    Raises:
        ValueError: The population is empty.
    """
    alike = sum(other >= likeness - _SLACK for other in others)
    found = clopper_pearson(alike, len(others))
    return Rate(among, learned, alike, len(others), found.low, found.high)


def measured(
    findings: Sequence[Finding], references: Sequence[Sequence[Finding]], counted: Counted
) -> list[Finding]:
    """Label each finding with how often it is made of models that never learned from what was served.

    Args:
        findings: Of the suspect.
        references: The same of each reference that is not the teacher itself, against the same teacher.
        counted: What the benchmark found.
    """
    by_name = [{f.name: f.likeness for f in row} for row in references]
    labelled: list[Finding] = []
    for finding in findings:
        if finding.likeness is None:
            labelled.append(finding)
            continue
        here = [x for row in by_name if (x := row.get(finding.name)) is not None]
        rates = [rate(finding.likeness, here, among=REFERENCES)] if here else []
        rates += [
            rate(finding.likeness, p.likeness[finding.name], among=p.name, learned=p.learned)
            for p in counted.populations
            if p.likeness.get(finding.name)
        ]
        labelled.append(replace(finding, measured=tuple(rates)))
    return labelled


@cache
def counted() -> Counted:
    """Return the rates that come with Limbeck."""
    text = resources.files("limbeck.trace").joinpath("likeness.json").read_text(encoding="utf-8")
    return read_counted(json.loads(text))


def read_counted(value: Mapping[str, Any]) -> Counted:
    """Read what `benchmarks/trace_kinship.py` wrote.

    Raises:
        ValueError: Another format.
    """
    if value.get("format") != FORMAT:
        raise ValueError(f"rates of likeness have the format {FORMAT}, got {value.get('format')!r}")
    populations = tuple(
        Population(row["name"], row["learned"], row["likeness"]) for row in value["populations"]
    )
    return Counted(value["command"], value["models"], populations)


def shown_rate(rate: Rate) -> str:
    """Write a rate for reading, such as `0 of 21 (0 to 16%)`."""
    return f"{rate.alike} of {rate.of} ({100 * rate.low:.0f} to {100 * rate.high:.0f}%)"
