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

from limbeck.distill.recipe import Recipe

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
}
"""Counts of a corpus in the order in which they are shown; others follow under their own names."""
_MINUS = "−"
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
    """One prompt with the greedy or sampled answers of all arms."""

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


def measures(heldout: Figures) -> tuple[Measure, ...]:
    """Return what a report's arms are measured by: per token, or across tokenizers by labels and bytes."""
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
        Measure("kl_mean", "kl_interval", "KL from teacher, nats", "KL, nats", "0", number),
        Measure(
            "top1_agreement", "top1_interval", "Top-1 agreement", "top-1 agreement", "100%", percent
        ),
        Measure("perplexity", "perplexity_interval", "Perplexity", "perplexity", None, number),
    )


def build_report(
    *,
    recipe: Recipe,
    created: datetime,
    terms: Figures,
    corpus: Mapping[str, int],
    footprint: Mapping[str, Figures],
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
    alignment: Figures | None = None,
) -> dict[str, Any]:
    """Put a run's figures into the form of docs/report.schema.json, with the sentences they support.

    Args:
        recipe: What was run.
        created: Aware time.
        terms: `Terms.as_dict()`.
        corpus: `Counts.as_dict()`; further counts, such as answers cut at their limit, may be added.
        footprint: "teacher" and "student", each `Footprint.as_dict()`.
        speed: `Speed.as_dict()`.
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
        "parameters": {who: footprint[who]["parameters"] for who in ("teacher", "student")},
        "memory": {who: _without(footprint[who], "parameters") for who in ("teacher", "student")},
        "speed_ratio": dict(speed["ratio"]),
        "speed": _without(speed, "ratio"),
        "heldout": heldout,
        "verdicts": verdicts,
        "tokens": {"captured": captured, "trained": trained},
        "store": dict(store),
        "seconds": seconds.as_dict(),
        "corpus": dict(corpus),
        "loss": {"kind": recipe.loss.kind, "notes": list(notes)},
        "curves": {arm: [dict(point) for point in points] for arm, points in curves.items()},
        "samples": [sample.as_dict() for sample in samples],
        "terms": dict(terms),
        "recipe": recipe.as_json(),
        "hashes": {"recipe": recipe.sha256, **hashes},
        "environment": dict(environment),
    }
    if alignment is not None:
        report["alignment"] = dict(alignment)
    return report | {"headline": headline(report)}


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
    heldout, parameters, speed = report["heldout"], report["parameters"], report["speed_ratio"]
    student = heldout["student"]
    share = parameters["student"] / parameters["teacher"]
    cost = (
        f"with {share:.0%} of its parameters at {speed['median']:.2f} times its generation speed "
        f"[{speed['low']:.2f}, {speed['high']:.2f}]"
    )
    measured = _found_across if "across" in heldout else _found_per_token
    sentences = measured(heldout, student, cost)
    for name in ("cross_entropy", "undistilled"):
        if name in report["verdicts"]:
            difference = heldout["differences"][name]
            sentences.append(
                _comparison(name, report["verdicts"][name]["verdict"], difference, heldout)
            )
        else:
            sentences.append(f"Not compared with {_OTHERS[name]}: that arm was not made.")
    return [*sentences, *report["loss"]["notes"]]


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


def _comparison(name: str, verdict: Verdict, difference: Figures, heldout: Figures) -> str:
    words = {
        "better": "Nearer to the teacher than",
        "worse": "Farther from the teacher than",
        "undecided": "Not told apart from",
    }
    judged, agreement, _ = measures(heldout)
    label = "label " if "across" in heldout else ""
    return (
        f"{words[verdict]} {_OTHERS[name]}: {label}KL differs by "
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
    table.add_row(
        "Teacher", *(m.teacher or m.write(heldout["teacher"][m.key], None) for m in columns)
    )
    for name, label in ARMS.items():
        if name in heldout:
            arm = heldout[name]
            table.add_row(
                label,
                *(m.write(arm[m.key], arm[m.interval]) for m in columns[:2]),
                columns[2].write(arm[columns[2].key], None),
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
    lines = [
        f"speed {speed['median']:.2f}x [{speed['low']:.2f}, {speed['high']:.2f}]   "
        f"parameters {millions(parameters['student'])} of {millions(parameters['teacher'])}   "
        f"store {store['bytes_per_token']:.1f} bytes/token",
        f"capture {duration(report['seconds']['capture'])}   train {duration(report['seconds']['train'])}   "
        f"evaluate {duration(report['seconds']['evaluate'])}   total {duration(report['seconds']['total'])}",
    ]
    return "\n".join([*lines, verdicts] if verdicts else lines)


def render_html(report: Figures) -> str:
    """Return a report as one HTML page that loads nothing and runs no script."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # heavy; only pages need it

    templates = Environment(
        loader=PackageLoader("limbeck.distill"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_shown,
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
    )


def visible(text: str) -> str:
    """Replace what HTML cannot hold by a visible sign: controls by their picture, lone surrogates by U+FFFD."""
    return "".join(map(_visible, text))


def _shown(value: object) -> object:
    """Make the text of every expression visible; what is markup already stays as it is."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _visible(letter: str) -> str:
    code = ord(letter)
    if code < 0x20 and letter not in "\n\t":
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return "\ufffd" if 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000 else letter


def _tiles(report: Figures) -> list[dict[str, str]]:
    student, parameters = report["heldout"]["student"], report["parameters"]
    speed, store, seconds = report["speed_ratio"], report["store"], report["seconds"]
    tiles = (
        *(
            (
                m.write(student[m.key], None),
                what,
                _interval_of(m.write, student[m.key], student[m.interval]),
            )
            for m, what in _shown_first(report["heldout"])
        ),
        (
            f"{speed['median']:.2f}×",
            "the teacher's speed",
            f"[{speed['low']:.2f}, {speed['high']:.2f}]",
        ),
        (
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
    judged, agreement, _ = measures(heldout)
    label = "label" if "across" in heldout else "top-1"
    over = "nats from the teacher over labels" if "across" in heldout else "nats from the teacher"
    return (agreement, f"{label} agreement"), (judged, over)


def _drawings(report: Figures) -> list[dict[str, Any]]:
    from limbeck.distill import plots  # matplotlib; only pages need it

    heldout = report["heldout"]
    arms = {name: heldout[name] for name in ARMS if name in heldout}
    drawings: list[dict[str, Any]] = []
    for key, heading, label, caption in () if "across" in heldout else _BUCKETS:
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
    names = {
        "weight_bytes": "Weights in memory, as timed",
        "cache_bytes_per_token": "Key-value cache per token",
        "disk_bytes": "On disk",
    }
    for key, what in names.items():
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


def number(value: float, interval: Sequence[float] | None = None, *, sign: bool = False) -> str:
    """Write a figure to three digits, its interval to the same place: `0.412 [0.398, 0.426]`."""
    digits = _decimals(value)
    form = f"{'+' if sign else ''},.{digits}f"
    text = f"{value:{form}}"
    if interval is not None:
        text += f" [{interval[0]:{form}}, {interval[1]:{form}}]"
    return text.replace("-", _MINUS)


def percent(share: float, interval: Sequence[float] | None = None) -> str:
    """Write a share: `63.1% [61.0, 65.2]`."""
    ends = "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return f"{100 * share:.1f}%{ends}"


def points(difference: float, interval: Sequence[float] | None = None) -> str:
    """Write a difference of shares in percentage points: `+2.1 points [+1.0, +3.2]`."""
    ends = "" if interval is None else f" [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"
    return f"{100 * difference:+.1f} points{ends}".replace("-", _MINUS)


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


def _decimals(value: float) -> int:
    """Return decimals that show three digits of a figure, at most four decimals."""
    magnitude = abs(value)
    for limit, decimals in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if magnitude >= limit:
            return decimals
    return 4


def _without(figures: Figures, key: str) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name != key}
