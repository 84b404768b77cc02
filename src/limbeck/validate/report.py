"""The report of a validation: one sentence, JSON under docs/validate-report.schema.json, tables, and one HTML file.

Everything is computed from figures; a sentence that a figure does not support cannot be written here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich import box
from rich.table import Table

from limbeck.figures import number, percent, points, shown
from limbeck.stats.retention import Retention
from limbeck.validate.controls import Control
from limbeck.validate.forest import forest
from limbeck.validate.tasks import TaskFile
from limbeck.validate.verdict import WORDS, TaskVerdict, Verdict, triple

FORMAT = "limbeck.validation/1"
Figures = Mapping[str, Any]
"""JSON values by name."""
SCORERS = {
    "choice": "choice by likelihood",
    "exact": "exact match",
    "numeric": "number",
    "regex": "pattern",
    "json_schema": "JSON with the right values",
    "unit_tests": "unit tests in a cell",
    "lm_eval": "lm-evaluation-harness",
    "inspect": "Inspect log",
}
_NORMALISED = {
    "bytes": "log-likelihood per UTF-8 byte",
    "tokens": "log-likelihood per token",
    "none": "log-likelihood, not divided by length",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that a report tells."""

    created: datetime
    teacher: str
    student: str
    promise: Figures
    """`promise` and its `sha256`."""
    retention: Retention
    verdict: Verdict
    tasks: Sequence[TaskVerdict]
    about: Mapping[str, TaskFile]
    """Task name to how it is scored."""
    detectable: float | None
    """Loss of retention that these items show four times out of five."""
    controls: Sequence[Control]
    fidelity: Figures
    judged: Figures
    timing: Figures
    contamination: Figures
    stopped: Figures | None
    """How far a sequential validation went."""
    samples: Sequence[Figures]
    environment: Figures


def build_report(measured: Measured) -> dict[str, Any]:
    """Put what was measured into the form of docs/validate-report.schema.json."""
    promise = measured.promise["promise"]
    verdict, found = measured.verdict, measured.retention
    claimed = not any(c.state == "misbehaves" for c in measured.controls)
    report: dict[str, Any] = {
        "format": FORMAT,
        "created": measured.created.isoformat(timespec="seconds"),
        "teacher": measured.teacher,
        "student": measured.student,
        "verdict": verdict.kind,
        "because": verdict.because,
        "more_items": verdict.more_items,
        "retention": triple(found) if claimed else None,
        "retention_reason": found.reason if claimed else verdict.because,
        "retention_method": found.method,
        "margin": promise["margin"],
        "margin_hash": measured.promise["sha256"],
        "promise": promise,
        "confidence": found.confidence,
        "items": found.items,
        "clusters": found.clusters,
        "detectable_loss": measured.detectable,
        "stopped": measured.stopped and dict(measured.stopped),
        "ledgers": {
            "verified": {
                "teacher_lift": found.teacher,
                "student_lift": found.student,
                "differing_clusters": found.differing,
                "tasks": [
                    {**t.as_dict(), **_about(measured.about[t.name])} for t in measured.tasks
                ],
            },
            "fidelity": dict(measured.fidelity),
            "judged": {k: v for k, v in measured.judged.items() if k != "judges"},
        },
        "judges": list(measured.judged["judges"]),
        "controls": {c.name: c.as_dict() for c in measured.controls},
        "speed_ratio": measured.timing["speed_ratio"],
        "cost_ratio": measured.timing["cost_ratio"],
        "timing": dict(measured.timing),
        "contamination": dict(measured.contamination),
        "samples": list(measured.samples),
        "environment": dict(measured.environment),
    }
    return report | {"sentence": sentence(report)}


def _about(settings: TaskFile) -> dict[str, Any]:
    choice = settings.scorer == "choice"
    return {
        "about": settings.about,
        "scorer": settings.scorer,
        "normalised": _NORMALISED[settings.normalise] if choice else None,
        "cluster_key": settings.cluster,
    }


def sentence(report: Figures) -> str:
    """Return the finding in one sentence: verdict, retention, margin, speed, cost, and what is not claimed."""
    word = WORDS[report["verdict"]]
    margin = f"margin {report['margin']:.0%}: {_passed(report['verdict'])}"
    if report["retention"] is None:
        head = f"{word}: {report['because']} ({margin})"
    else:
        kept = f"{share(report['retention'])} of the teacher's above-chance quality ({margin})"
        head = f"{word} {kept}" if report["verdict"] != "CANT_TELL" else f"{word}: {kept}"
        if report["verdict"] == "LOSES":
            head = f"LOSES: keeps {kept}"
        if report["verdict"] == "CANT_TELL":
            head += f", {_more(report)}"
    return f"{head}{_pace(report)}; judged part: {_judged(report)}"


def _passed(verdict: str) -> str:
    return {"KEEPS": "PASS", "LOSES": "FAIL"}.get(verdict, "UNDECIDED")


def _more(report: Figures) -> str:
    if report["more_items"] is None:
        return str(report["because"])
    return f"about {report['more_items']:,} more items would settle it"


def _pace(report: Figures) -> str:
    speed, cost = report["speed_ratio"], report["cost_ratio"]
    if speed is None:
        return "; speed not timed"
    paid = "" if cost is None else f", {number(cost[0])}x the cost"
    return f" at {speed[0]:.1f}x [{speed[1]:.1f}, {speed[2]:.1f}] the speed{paid}"


def _judged(report: Figures) -> str:
    judged = report["ledgers"]["judged"]
    return str(judged["claim"]) if judged["claim"] else f"NOT CLAIMED ({judged['reason']})"


def share(interval: Sequence[float]) -> str:
    """Write a retention: `94% [91, 97]`."""
    point, low, high = (100 * x for x in interval)
    digits = 0 if high - low >= 2 else 1
    return f"{point:.{digits}f}% [{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")


def tables(report: Figures) -> Iterator[Table | str]:
    """Yield what a terminal of 80 columns shows: the sentence, then the tables."""
    yield str(report["sentence"])
    yield _task_table(report)
    yield _control_table(report)
    yield from notes(report)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    return table


def _task_table(report: Figures) -> Table:
    confidence = f"{report['confidence']:.0%}"
    table = _table(
        f"Verified, {report['items']:,} items; {confidence} intervals, verdicts by Holm over "
        f"{len(report['ledgers']['verified']['tasks'])} tasks",
        *("task", "items", "chance", "teacher", "student", "retention", "verdict"),
    )
    for task in report["ledgers"]["verified"]["tasks"]:
        table.add_row(
            task["task"],
            f"{task['items']:,}",
            percent(task["chance"]),
            percent(task["teacher"]),
            percent(task["student"]),
            "no claim" if task["retention"] is None else share(task["retention"]),
            WORDS[task["verdict"]],
        )
    return table


def _control_table(report: Figures) -> Table:
    table = _table("Controls", "control", "expected", "retention", "state")
    for name, control in report["controls"].items():
        kept = "–" if control["retention"] is None else share(control["retention"])
        table.add_row(name, control["expected"], kept, control["state"])
    return table


def notes(report: Figures) -> list[str]:
    """Return what a reader must know beside the tables, one sentence each."""
    said: list[str] = []
    loss = report["detectable_loss"]
    if loss is not None:
        said.append(
            f"These items show a loss of {percent(loss)} of the teacher's quality four times out of five."
        )
    if report["stopped"] is not None:
        stopped = report["stopped"]
        said.append(
            f"Scoring stopped after {stopped['items_scored']:,} of {stopped['items_there']:,} items, when the evidence "
            "sufficed; the interval holds at whatever item one stops."
        )
    contamination = report["contamination"]
    if not contamination["checked"]:
        said.append(f"Contamination was not checked: {contamination['reason']}.")
    else:
        found = sum(t["found"] for t in contamination["tasks"].values())
        clean = contamination["clean"]
        kept = (
            f"no claim ({clean['reason']})"
            if clean["retention"] is None
            else share(clean["retention"])
        )
        said.append(
            f"{found:,} items occur in the training text; retention on the {clean['items']:,} others: {kept}."
        )
    divergence = report["ledgers"]["fidelity"]["divergence"]
    if divergence is not None:
        said.append(
            f"Fidelity: {number(divergence['kl_mean'], divergence['kl_interval'])} nats from the teacher, the same "
            f"first token at {percent(divergence['top1_agreement'], divergence['top1_interval'])} of positions."
        )
    said.append(f"Margin and tasks were fixed before scoring: {report['margin_hash'][:16]}.")
    return said


def render_html(report: Figures) -> str:
    """Return a report as one HTML page that loads nothing and runs no script."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # heavy; only pages need it

    templates = Environment(
        loader=PackageLoader("limbeck.validate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=shown,
    )
    verified = report["ledgers"]["verified"]["tasks"]
    rows = [(t["task"], t["retention"], t["verdict"]) for t in verified]
    if len(rows) > 1:
        rows.append(("all tasks", report["retention"], report["verdict"]))
    return templates.get_template("report.html.j2").render(
        r=report,
        word=WORDS[report["verdict"]],
        words=WORDS,
        tiles=_tiles(report),
        drawing=forest(rows, margin=report["margin"]),
        scorers=SCORERS,
        notes=notes(report),
        share=share,
        percent=percent,
        points=points,
        number=number,
    )


def _tiles(report: Figures) -> list[dict[str, str]]:
    kept, speed, cost = report["retention"], report["speed_ratio"], report["cost_ratio"]
    divergence = report["ledgers"]["fidelity"]["divergence"]
    judged = report["ledgers"]["judged"]
    tiles = [
        (
            "–" if kept is None else f"{kept[0]:.0%}",
            "of the teacher's above-chance quality",
            "no claim" if kept is None else f"[{kept[1]:.0%}, {kept[2]:.0%}]",
        ),
        (f"{report['margin']:.0%}", "margin, fixed beforehand", report["margin_hash"][:12]),
        (f"{report['items']:,}", "items checked by program", f"{report['clusters']:,} independent"),
        (
            "–" if divergence is None else percent(divergence["top1_agreement"]),
            "same first token",
            "not measured"
            if divergence is None
            else f"{number(divergence['kl_mean'])} nats from the teacher",
        ),
        (
            "–" if speed is None else f"{speed[0]:.2f}×",
            "the teacher's speed",
            "not timed" if speed is None else f"[{speed[1]:.2f}, {speed[2]:.2f}]",
        ),
        (
            "–" if cost is None else f"{cost[0]:.2f}×",
            "cost of an accepted answer",
            "not measured" if cost is None else f"[{cost[1]:.2f}, {cost[2]:.2f}]",
        ),
        (
            "–" if judged["win_rate"] is None else f"{judged['win_rate'][0]:.0%}",
            "judged wins over the teacher",
            "not claimed" if judged["win_rate"] is None else "licensed judges",
        ),
    ]
    return [{"figure": a, "what": b, "beside": c} for a, b, c in tiles]
