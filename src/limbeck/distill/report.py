"""The report of a distillation: JSON under docs/report.schema.json, a terminal table, and one HTML file.

Everything is computed from figures; a sentence that a figure does not support cannot be written here.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.table import Table

from limbeck.distill.filter import told
from limbeck.distill.recipe import Recipe
from limbeck.figures import number, percent, points, shown

if TYPE_CHECKING:  # the report is read and drawn without torch
    from limbeck.distill.train import StepLog

FORMAT = "limbeck.report/1"
CURVE_POINTS = 300
"""Points of a training curve at the most; longer logs are averaged over equal runs of steps."""
ARMS = {
    "student": "Student",
    "cross_entropy": "Cross-entropy control",
    "undistilled": "Undistilled start",
}
"""Arms in the order in which they are shown."""
_MARKS = {"teacher": "◆", "student": "●", "cross_entropy": "■", "undistilled": "▲"}
_COUNTS = {
    "read": "Read",
    "empty": "Dropped: empty",
    "duplicate": "Dropped: duplicates",
    "beyond_limit": "Dropped: beyond the recipe's limit",
    "too_long": "Dropped: longer than the maximal length",
    "too_short": "Dropped: without a token to predict",
    "inseparable": "Dropped: answer not separable from the turn's header",
    "unaligned": "Dropped: not spelt alike by both tokenizers",
    "records": "Kept before tokenising",
    "answers_ignored": "Answers set aside, for the teacher writes its own",
    "cut": "Texts cut into pieces",
    "train": "Documents to train on",
    "heldout": "Documents held out",
    "cut_answers": "Answers cut at their length",
    "empty_answers": "Dropped: answers without text",
    "beyond_context": "Dropped: prompts that do not fit into the API's context",
    "equal_answers": "Answers equal to an earlier one to the same prompt",
    "unknown_ends": "Ends of turns without a stated distribution, learned as realised tokens",
    "foreign_tokens": "Likely tokens that the student lacks; their mass stays in the tail",
}
"""Counts of a corpus in the order in which they are shown; others follow under their own names."""
_ON_POLICY_CONTROL = (
    "the control trained with plain cross-entropy from the same start, on the teacher's answers to the same "
    "prompts and for the same steps"
)
_PACKAGES = ("limbeck", "torch", "transformers", "numpy")
_OTHERS = {
    "cross_entropy": "the control trained with plain cross-entropy from the same start, on the same text and steps",
    "undistilled": "the start it was trained from",
}

Figures = Mapping[str, Any]
"""JSON values by name."""
Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt with an answer of every arm, all drawn alike: as the run's text was, else the likeliest."""

    prompt: str
    teacher: str
    student: str
    undistilled: str | None = None
    """None where the arm was not made."""
    cross_entropy: str | None = None
    """None where the arm was not made."""

    def as_dict(self) -> dict[str, str]:
        """Return JSON values; absent arms are left out."""
        return {name: text for name, text in asdict(self).items() if text is not None}


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall time of the steps; `total` also holds what lies between them."""

    capture: float
    train: float
    evaluate: float
    total: float

    def as_dict(self) -> dict[str, float]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Measure:
    """A held-out figure of every arm."""

    key: str
    interval: str
    title: str
    short: str
    teacher: str | None
    """What stands for the teacher; None where it has a figure of its own."""
    write: Callable[[float, Sequence[float] | None], str]
    is_bound: bool = False
    """Whether it is at most the figure that it stands for."""

    @property
    def bound(self) -> str:
        """What precedes the interval of a bound."""
        return "at least, " if self.is_bound else ""

    def of(self, arm: Figures, *, interval: bool = True) -> str:
        """Write an arm's figure, or a dash where there is none."""
        value = arm[self.key]
        return "–" if value is None else self.write(value, arm[self.interval] if interval else None)


def measures(heldout: Figures) -> tuple[Measure, ...]:
    """Return what a report's arms are measured by: per token, or across tokenizers by labels and bytes."""
    knowledge = heldout.get("knowledge", "distribution")
    bound, here = knowledge == "likely_tokens", knowledge == "distribution"
    least = ", at least" if bound else ""
    if "across" in heldout:
        return (
            Measure(
                "label_kl", "label_kl_interval", "Label KL, nats", "label KL, nats", "0", number
            ),
            Measure(
                "label_agreement",
                "label_agreement_interval",
                "Label agreement",
                "label agreement",
                "100%",
                percent,
            ),
            Measure(
                "bits_per_byte",
                "bits_per_byte_interval",
                "Bits per byte",
                "bits per byte",
                None,
                number,
            ),
        )
    return (
        Measure(
            "kl_mean",
            "kl_interval",
            f"KL from teacher, nats{least}",
            f"KL, nats{least}",
            "0" if here else "–",
            number,
            bound,
        ),
        Measure(
            "top1_agreement",
            "top1_interval",
            "Top-1 agreement",
            "top-1 agreement",
            "100%" if here else "–",
            percent,
        ),
        Measure("perplexity", "perplexity_interval", "Perplexity", "perplexity", None, number),
    )


def build_report(
    *,
    recipe: Recipe,
    created: datetime,
    terms: Figures,
    corpus: Mapping[str, int],
    footprint: Mapping[str, Figures | None],
    speed: Figures,
    heldout: Figures,
    captured: int,
    trained: int,
    store: Figures,
    seconds: Seconds,
    curves: Mapping[str, Sequence[Figures]],
    samples: Sequence[Sample],
    notes: Sequence[str],
    hashes: Mapping[str, str],
    environment: Figures,
    on_policy: Figures | None = None,
    api: Figures | None = None,
    sifted: Figures | None = None,
    judge: Figures | None = None,
    alignment: Figures | None = None,
) -> dict[str, Any]:
    """Put a run's figures into the form of docs/report.schema.json, with the sentences they support.

    Args:
        recipe: What was run.
        created: Aware time.
        terms: `Terms.as_dict()`.
        corpus: `Counts.as_dict()`; further counts, such as answers cut at their limit, may be added.
        footprint: "teacher" and "student", each `Footprint.as_dict()`; None for a teacher behind an API.
        speed: `Speed.as_dict()`; for a teacher behind an API its figures and the ratio are None.
        heldout: `Heldout.as_dict()`; arms that were not made are absent.
        captured: Positions in the store.
        trained: Loss positions the student was trained on, over all epochs.
        store: At least `bytes_per_token`.
        seconds: Wall time.
        curves: Arm name to `training_curve(log)`.
        samples: Side by side.
        notes: What changed the objective or the comparison, in full sentences.
        hashes: Name of a thing to its SHA-256.
        environment: `environment()`.
        on_policy: Counts of what the student wrote itself; None where it wrote nothing.
        api: What was asked of a teacher behind an API, and what it took.
        sifted: Answers, kept and rejected, where a filter chose among them.
        judge: What was asked of a judge, likewise.
        alignment: How spans of teacher and student lie beside each other; None where they share a tokenizer.
    """
    differences = {n: heldout["differences"][n] for n in ARMS if n in heldout["differences"]}
    heldout = {**heldout, "differences": differences}
    judged, *_ = measures(heldout)
    verdicts = {name: _verdict(figures, judged) for name, figures in differences.items()}
    report = {
        "format": FORMAT,
        "name": recipe.name,
        "created": created.isoformat(timespec="seconds"),
        "teacher": recipe.teacher.model,
        "parameters": {who: f and f["parameters"] for who, f in footprint.items()},
        "memory": {who: f and _without(f, "parameters") for who, f in footprint.items()},
        "speed_ratio": speed["ratio"] and dict(speed["ratio"]),
        "speed": _without(speed, "ratio"),
        "heldout": heldout,
        "verdicts": verdicts,
        "tokens": {"captured": captured, "trained": trained},
        "store": dict(store),
        "seconds": seconds.as_dict(),
        "corpus": dict(corpus),
        "loss": {"kind": _loss_kind(recipe), "notes": list(notes)},
        "curves": {arm: [dict(point) for point in points] for arm, points in curves.items()},
        "samples": [sample.as_dict() for sample in samples],
        "terms": dict(terms),
        "recipe": recipe.as_json(),
        "hashes": {"recipe": recipe.sha256, **hashes},
        "environment": dict(environment),
        **({} if on_policy is None else {"on_policy": dict(on_policy)}),
        **{n: dict(v) for n, v in (("api", api), ("filter", sifted), ("judge", judge)) if v},
    }
    if alignment is not None:
        report["alignment"] = dict(alignment)
    unmeasured = _unmeasured(report)
    report |= {"unmeasured": unmeasured} if unmeasured else {}
    return report | {"headline": headline(report)}


def _loss_kind(recipe: Recipe) -> str:
    """Return what the student minimised; where it read some text and wrote some, on what it read."""
    own = recipe.on_policy
    return own.loss.kind if own is not None and own.fraction == 1 else recipe.loss.kind


def _unmeasured(report: Figures) -> dict[str, str]:
    """Return the figures that are null, each with the reason."""
    heldout, reasons = report["heldout"], dict[str, str]()
    if report["parameters"]["teacher"] is None:
        reasons["parameters.teacher"] = (
            "the teacher is behind an API, which does not show its weights"
        )
        reasons["memory.teacher"] = reasons["parameters.teacher"]
        reasons["speed_ratio"] = (
            "the teacher is behind an API: its speed is that of a network and of other machines"
        )
    if heldout["teacher"]["perplexity"] is None:
        reasons["heldout.teacher.perplexity"] = (
            "the API does not state the probability of every token that the teacher wrote"
        )
    if heldout["student"]["kl_mean"] is None:
        reasons["heldout.*.kl_mean"] = (
            "the API gives text alone; differences between arms need no teacher's probabilities and are given"
        )
    return reasons


def training_curve(log: Sequence["StepLog"]) -> list[dict[str, float | int]]:
    """Return a training log as at most `CURVE_POINTS` points, each the mean of a run of steps.

    Losses are weighted by positions; step and learning rate are those of the run's last step.
    """
    stride = -(-len(log) // CURVE_POINTS) or 1
    points: list[dict[str, float | int]] = []
    for start in range(0, len(log), stride):
        steps = log[start : start + stride]
        positions = sum(s.positions for s in steps)
        points.append(
            {
                "step": steps[-1].step,
                "loss": sum(s.loss * s.positions for s in steps) / positions,
                "learning_rate": steps[-1].learning_rate,
                "tokens_per_s": positions / sum(s.seconds for s in steps),
            }
        )
    return points


def environment(*, device: str, threads: int) -> dict[str, Any]:
    """Return versions and machine, for whoever wants to repeat the run.

    Args:
        device: Where the models ran, such as "cpu".
        threads: Threads that computed.
    """
    versions = {name: metadata.version(name) for name in _PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cpus": os.cpu_count() or 1,
            "threads": threads,
            "device": device,
        },
    }


def headline(report: Figures) -> list[str]:
    """Return the findings of a report as plain sentences, each with its interval."""
    heldout = report["heldout"]
    knowledge = heldout.get("knowledge", "distribution")
    sentences = _about_one_here(report) if knowledge == "distribution" else _about_remote(report)
    for name in ("cross_entropy", "undistilled"):
        if name in report["verdicts"]:
            difference = heldout["differences"][name]
            verdict = report["verdicts"][name]["verdict"]
            sentences.append(_comparison(_other(name, report), verdict, difference, heldout))
        else:
            sentences.append(f"Not compared with {_OTHERS[name]}: that arm was not made.")
    return [*sentences, *report["loss"]["notes"]]


def _about_one_here(report: Figures) -> list[str]:
    """Compare the student with a teacher whose weights are here."""
    heldout, parameters, speed = report["heldout"], report["parameters"], report["speed_ratio"]
    student = heldout["student"]
    share = parameters["student"] / parameters["teacher"]
    cost = (
        f"with {share:.0%} of its parameters at {speed['median']:.2f} times its generation speed "
        f"[{speed['low']:.2f}, {speed['high']:.2f}]"
    )
    measured = _found_across if "across" in heldout else _found_per_token
    return measured(heldout, student, cost)


def _found_per_token(heldout: Figures, student: Figures, cost: str) -> list[str]:
    return [
        f"Names the teacher's first choice at {percent(student['top1_agreement'], student['top1_interval'])} "
        f"of held-out positions, {cost}.",
        f"Lies {number(student['kl_mean'], student['kl_interval'])} nats from the teacher (mean KL over "
        f"{heldout['positions']:,} positions of {heldout['documents']:,} documents); perplexity "
        f"{number(student['perplexity'])} against the teacher's {number(heldout['teacher']['perplexity'])}.",
    ]


def _found_across(heldout: Figures, student: Figures, cost: str) -> list[str]:
    across = heldout["across"]
    return [
        f"Finds the teacher's label likeliest at {_with_interval(percent, student, 'label_agreement')} of the "
        f"held-out positions where their tokens coincide, {cost}.",
        f"Needs {_with_interval(number, student, 'bits_per_byte')} bits per byte of held-out text, the teacher "
        f"{number(heldout['teacher']['bits_per_byte'])}; over labels that both vocabularies share it lies "
        f"{_with_interval(number, student, 'label_kl')} nats from the teacher ({across['coincident']:,} of "
        f"{heldout['positions']:,} positions, {heldout['documents']:,} documents).",
        f"{across['undefined']}.",
    ]


def _with_interval(
    write: Callable[[float, Sequence[float] | None], str], figures: Figures, key: str
) -> str:
    return write(figures[key], figures[f"{key}_interval"])


def _about_remote(report: Figures) -> list[str]:
    """Compare the student with what a teacher behind an API said."""
    heldout = report["heldout"]
    student = heldout["student"]
    choice = (
        "the token that the teacher wrote"
        if heldout["knowledge"] == "text"
        else "the teacher's first choice"
    )
    own = heldout["differences_of"] == "likelihood"
    text = "the teacher's own answers" if own else "the corpus, which the teacher scored"
    where = f"{heldout['positions']:,} positions of {heldout['documents']:,} documents"
    sentences = [
        f"Names {choice} at {percent(student['top1_agreement'], student['top1_interval'])} of held-out positions, "
        f"with {millions(report['parameters']['student'])} parameters; the teacher is behind an API, so its size "
        "and speed are not compared.",
        f"Perplexity {number(student['perplexity'], student['perplexity_interval'])} on {text} ({where}).",
    ]
    if student["kl_mean"] is not None:
        sentences.append(
            f"Lies at least {number(student['kl_mean'], student['kl_interval'])} nats from the teacher: mean KL over "
            "its likeliest tokens and all others together, which is a lower bound."
        )
    return sentences


def _other(name: str, report: Figures) -> str:
    """Say what an arm is; text that the student wrote itself is not its control's."""
    if name == "cross_entropy" and report.get("on_policy", {}).get("answers"):
        return _ON_POLICY_CONTROL
    return _OTHERS[name]


def _comparison(other: str, verdict: Verdict, difference: Figures, heldout: Figures) -> str:
    words = {
        "better": "Nearer to the teacher than",
        "worse": "Farther from the teacher than",
        "undecided": "Not told apart from",
    }
    judged, agreement, _ = measures(heldout)
    bounded = heldout.get("differences_of") == "bounded_kl"
    what = "label KL" if "across" in heldout else "bounded KL" if bounded else "KL"
    return (
        f"{words[verdict]} {other}: {what} differs by "
        f"{number(difference[judged.key], difference[judged.interval], sign=True)} nats, agreement by "
        f"{points(difference[agreement.key], difference[agreement.interval])}."
    )


def _verdict(difference: Figures, judged: Measure) -> dict[str, str]:
    """Judge a paired difference by the interval of one measure alone, which was fixed beforehand."""
    interval = difference[judged.interval]
    confidence = f"{difference['confidence']:.4g}"
    what = "KL" if judged.key == "kl_mean" else "label KL"
    if interval is None:
        return {"verdict": "undecided", "because": "fewer than two documents give no interval"}
    low, high = interval
    if high < 0:
        return {
            "verdict": "better",
            "because": f"the {confidence} interval of the {what} difference is below 0",
        }
    if low > 0:
        return {
            "verdict": "worse",
            "because": f"the {confidence} interval of the {what} difference is above 0",
        }
    return {
        "verdict": "undecided",
        "because": f"the {confidence} interval of the {what} difference holds 0",
    }


def summary_table(report: Figures) -> Table:
    """Return the main figures as a table for a terminal of 80 columns."""
    heldout = report["heldout"]
    table = Table(
        title=f"{report['name']}: held-out text, {heldout['positions']:,} positions of "
        f"{heldout['documents']:,} documents",
        caption=_running_costs(report),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("")
    columns = measures(heldout)
    for measure in columns:
        table.add_column(measure.short, justify="right")
    if heldout.get("knowledge", "distribution") == "distribution":
        teacher = heldout["teacher"]
        table.add_row("Teacher", *(m.teacher or m.of(teacher, interval=False) for m in columns))
    for name, label in ARMS.items():
        if name in heldout:
            arm = heldout[name]
            table.add_row(
                label,
                *(m.of(arm) for m in columns[:2]),
                columns[2].of(arm, interval=False),
                style="bold" if name == "student" else None,
            )
    return table


def _running_costs(report: Figures) -> str:
    parameters, speed, store = report["parameters"], report["speed_ratio"], report["store"]
    verdicts = ", ".join(
        f"{v['verdict']} than {ARMS[name].lower()}"
        if v["verdict"] != "undecided"
        else f"undecided against {ARMS[name].lower()}"
        for name, v in report["verdicts"].items()
    )
    speeds = (
        f"speed {speed['median']:.2f}x [{speed['low']:.2f}, {speed['high']:.2f}]   "
        if speed
        else ""
    )
    of = f" of {millions(parameters['teacher'])}" if parameters["teacher"] else ""
    lines = [
        f"{speeds}parameters {millions(parameters['student'])}{of}   "
        f"store {store['bytes_per_token']:.1f} bytes/token",
        f"capture {duration(report['seconds']['capture'])}   train {duration(report['seconds']['train'])}   "
        f"evaluate {duration(report['seconds']['evaluate'])}   total {duration(report['seconds']['total'])}",
    ]
    lines += [*_asked_lines(report), *([verdicts] if verdicts else [])]
    return "\n".join(lines)


def _asked_lines(report: Figures) -> list[str]:
    """Say what APIs were asked and what a filter rejected."""
    lines = [_asked(name, report[key]) for name, key in _APIS.items() if key in report]
    if "filter" in report:
        kept, all_ = (sum(report["filter"][key].values()) for key in ("kept", "answers"))
        lines.append(
            f"filter kept {kept:,} of {all_:,} answers; rejected: {told(report['filter']['rejected'])}"
        )
    return lines


_APIS = {"teacher's API": "api", "judge's API": "judge"}


def _asked(name: str, figures: Figures) -> str:
    cost = "" if figures["cost"] is None else f", cost {figures['cost']:.4g}"
    return (
        f"{name}: {figures['requests']:,} requests, {figures['prompt_tokens']:,} tokens in, "
        f"{figures['completion_tokens']:,} out{cost}"
    )


def render_html(report: Figures) -> str:
    """Return a report as one HTML page that loads nothing and runs no script."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # heavy; only pages need it

    templates = Environment(
        loader=PackageLoader("limbeck.distill"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=shown,
    )
    heldout = report["heldout"]
    return templates.get_template("report.html.j2").render(
        r=report,
        h=heldout,
        arms={name: label for name, label in ARMS.items() if name in heldout},
        labels={"teacher": "Teacher", **ARMS},
        marks=_MARKS,
        measures=measures(heldout),
        tiles=_tiles(report),
        figures=_drawings(report),
        costs=_costs(report),
        counts=_count_rows(report["corpus"]),
        recipe=json.dumps(report["recipe"], indent=2, ensure_ascii=False),
        number=number,
        percent=percent,
        points=points,
        signed=_signed,
        interval_of=_interval_of,
        knowledge=heldout.get("knowledge", "distribution"),
        asked=_asked_lines(report),
        because=report.get("unmeasured", {}),
    )


def _tiles(report: Figures) -> list[dict[str, str]]:
    student, parameters = report["heldout"]["student"], report["parameters"]
    speed, store, seconds = report["speed_ratio"], report["store"], report["seconds"]
    rate = report["speed"]["student_tokens_per_s"]
    tiles = (
        *(
            (
                m.write(student[m.key], None),
                what,
                m.bound + _interval_of(m.write, student[m.key], student[m.interval]),
            )
            for m, what in _shown_first(report["heldout"])
        ),
        (number(rate["median"]), "tokens per second", f"[{rate['low']:.1f}, {rate['high']:.1f}]")
        if speed is None
        else (
            f"{speed['median']:.2f}×",
            "the teacher's speed",
            f"[{speed['low']:.2f}, {speed['high']:.2f}]",
        ),
        (millions(parameters["student"]), "parameters", "the teacher's are not known")
        if parameters["teacher"] is None
        else (
            f"{parameters['student'] / parameters['teacher']:.0%}",
            "of its parameters",
            f"{millions(parameters['student'])} of {millions(parameters['teacher'])}",
        ),
        (
            f"{store['bytes_per_token']:.1f}",
            "bytes stored per token",
            f"{report['tokens']['captured']:,} tokens captured",
        ),
        (
            f"{seconds['total'] / 60:.1f} min",
            "from corpus to report",
            f"{duration(seconds['train'])} of it training",
        ),
    )
    return [{"figure": a, "what": b, "beside": c} for a, b, c in tiles]


def _shown_first(heldout: Figures) -> tuple[tuple[Measure, str], ...]:
    judged, agreement, likelihood = measures(heldout)
    if "across" in heldout:
        return (agreement, "label agreement"), (judged, "nats from the teacher over labels")
    if heldout["student"][judged.key] is None:
        return (agreement, "top-1 agreement"), (likelihood, "perplexity on the teacher's text")
    return (agreement, "top-1 agreement"), (judged, "nats from the teacher")


def _drawings(report: Figures) -> list[dict[str, Any]]:
    from limbeck.distill import plots  # matplotlib; only pages need it

    heldout = report["heldout"]
    arms = {name: heldout[name] for name in ARMS if name in heldout}
    drawings: list[dict[str, Any]] = []
    for key, heading, label, caption in _BUCKETS:
        if arms["student"][key] is None:
            continue
        buckets = {name: arm[key] for name, arm in arms.items()}
        title = f"{heading}: mean KL of {', '.join(ARMS[name] for name in buckets)}"
        svg = plots.divergence_by_bucket(buckets, label=label, prefix=key, title=title)
        columns = ["positions", *(ARMS[name] for name in buckets)]
        drawings.append(
            {
                "heading": heading,
                "drawing": svg,
                "caption": caption,
                "first": label,
                "columns": columns,
                "rows": _bucket_rows(buckets),
                "wide": False,
            }
        )
    curves = {name: report["curves"][name] for name in ARMS if report["curves"].get(name)}
    if curves:
        title = f"Training loss of {', '.join(ARMS[name] for name in curves)} by optimiser step"
        svg = plots.loss_curves(curves, prefix="loss", title=title)
        drawings.append(
            {
                "heading": "Training loss",
                "drawing": svg,
                "caption": _loss_caption(report, curves),
                "rows": [],
                "wide": True,
            }
        )
    return drawings


_BUCKETS = (
    (
        "kl_by_position",
        "By position in the answer",
        "tokens of the answer already written",
        "Mean KL with its interval; the axis is logarithmic. Where the line climbs, the student loses the "
        "thread as the answer grows.",
    ),
    (
        "kl_by_frequency",
        "By how often the token was seen",
        "occurrences of the next token in the training text",
        "Held-out positions in quarters, from the rarest next token to the most frequent; equal counts stay "
        "together.",
    ),
)


def _bucket_rows(buckets: Mapping[str, Sequence[Figures]]) -> list[list[str]]:
    return [
        [
            row[0]["bucket"],
            f"{row[0]['positions']:,}",
            *(number(bucket["kl_mean"], bucket["kl_interval"]) for bucket in row),
        ]
        for row in zip(*buckets.values(), strict=True)
    ]


def _loss_caption(report: Figures, curves: Mapping[str, object]) -> str:
    kind = report["loss"]["kind"].replace("_", " ").replace("kl", "KL").replace("jsd", "JSD")
    text = "Thin: as logged; bold: mean of neighbouring points."
    if "cross_entropy" in curves and report["loss"]["kind"] != "cross_entropy":
        return (
            f"{text} The student minimises {kind}, the control cross-entropy: each curve shows its own "
            "progress, and their heights do not compare."
        )
    return f"{text} The student minimises {kind}."


def _costs(report: Figures) -> list[dict[str, str]]:
    parameters, memory, speed = report["parameters"], report["memory"], report["speed"]
    teacher, student = memory["teacher"], memory["student"]
    if teacher is None:
        return _costs_alone(report)
    ratio = report["speed_ratio"]
    rows = [
        {
            "what": "Generation, tokens per second",
            "teacher": number(speed["teacher_tokens_per_s"]["median"]),
            "student": number(speed["student_tokens_per_s"]["median"]),
            "ratio": f"{ratio['median']:.2f}",
            "interval": f"[{ratio['low']:.2f}, {ratio['high']:.2f}]",
        },
        {
            "what": "Time per token: the share of the bill on one machine",
            "teacher": "1",
            "student": f"{speed['cost_ratio']:.2f}",
            "ratio": f"{speed['cost_ratio']:.2f}",
            "interval": "",
        },
        {
            "what": "Parameters",
            "teacher": millions(parameters["teacher"]),
            "student": millions(parameters["student"]),
            "ratio": f"{parameters['student'] / parameters['teacher']:.2f}",
            "interval": "",
        },
    ]
    if "prompt_tokens" in speed:
        theirs, ours = speed["prompt_tokens"]["teacher"], speed["prompt_tokens"]["student"]
        rows.append(_cost_row("Prompt tokens of the timed requests, mean", theirs, ours))
    if "cost_ratio_cached_prompt" in speed:
        rows.append(
            {
                "what": "Time per token where the teacher keeps its prompt's beginning in a cache",
                "teacher": "1",
                "student": f"{speed['cost_ratio_cached_prompt']:.2f}",
                "ratio": f"{speed['cost_ratio_cached_prompt']:.2f}",
                "interval": "",
            }
        )
    if "bytes_per_token" in speed:
        theirs, ours = speed["bytes_per_token"]["teacher"], speed["bytes_per_token"]["student"]
        rows.append(_cost_row("Bytes of text a token; ratios of time count text", theirs, ours))
    for key, what in _SIZES.items():
        ours, theirs = student[key], teacher[key]
        rows.append(
            {
                "what": what,
                "teacher": size(theirs),
                "student": size(ours),
                "ratio": f"{ours / theirs:.2f}" if ours and theirs else "–",
                "interval": "",
            }
        )
    return rows


_SIZES = {
    "weight_bytes": "Weights in memory, as timed",
    "cache_bytes_per_token": "Key-value cache per token",
    "disk_bytes": "On disk",
}


def _costs_alone(report: Figures) -> list[dict[str, str]]:
    """Return what a student costs whose teacher is behind an API."""
    rate = report["speed"]["student_tokens_per_s"]
    figures = {
        "Generation, tokens per second": number(rate["median"]),
        "Parameters": millions(report["parameters"]["student"]),
        **{what: size(report["memory"]["student"][key]) for key, what in _SIZES.items()},
    }
    return [
        {"what": what, "teacher": "–", "student": figure, "ratio": "–", "interval": ""}
        for what, figure in figures.items()
    ]


def _cost_row(what: str, teacher: float, student: float) -> dict[str, str]:
    return {
        "what": what,
        "teacher": number(teacher),
        "student": number(student),
        "ratio": f"{student / teacher:.2f}",
        "interval": "",
    }


def _count_rows(corpus: Mapping[str, int]) -> list[dict[str, str]]:
    known = [name for name in _COUNTS if name in corpus]
    others = [name for name in corpus if name not in _COUNTS]
    return [
        {
            "what": _COUNTS.get(name, name.replace("_", " ").capitalize()),
            "count": f"{corpus[name]:,}",
        }
        for name in (*known, *others)
    ]


def _signed(value: float, interval: Sequence[float] | None = None) -> str:
    return number(value, interval, sign=True)


def _interval_of(
    write: Callable[[float, Sequence[float] | None], str],
    value: float,
    interval: Sequence[float] | None,
) -> str:
    """Return the bracket that `write` puts after a figure, or nothing where there is no interval."""
    text = write(value, interval)
    return text[text.index("[") :] if "[" in text else ""


def millions(count: int) -> str:
    """Write a number of parameters: `67.2M`, `1.24B`, `812k`."""
    for size, unit, digits in ((1_000_000_000, "B", 2), (1_000_000, "M", 1), (1_000, "k", 0)):
        if count >= size:
            return f"{count / size:.{digits}f}{unit}"
    return str(count)


def size(count: int | None) -> str:
    """Write bytes in decimal units: `269.1 MB`; a dash where absent."""
    if count is None:
        return "–"
    for step, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """Write a time: `48.2 s`, `6 min 05 s`, `1 h 02 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _without(figures: Figures, key: str) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name != key}
