"""A student's model card: what it is, what it came from, and how well it did."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from limbeck.distill.student import BuildRecord

# Hub names of packaged teachers, by which other tools find the base model.
_BASE_MODELS = {"packaged:smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}

# Licence identifiers that the hub knows; it writes them in lower case. Others are `other` with a name.
_HUB_LICENCES = frozenset(
    {
        "afl-3.0",
        "apache-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "gemma",
        "isc",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "mit",
        "mpl-2.0",
        "openrail",
        "unlicense",
    }
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a student comes from, as its card tells."""

    name: str
    """The student's own."""
    teacher: str
    """How the user named the teacher."""
    teacher_source: str | None
    """The teacher's files: a package with its version, a hub name with its commit, or a folder."""
    teacher_sha256: str | None
    """None where the teacher is behind an API."""
    licence: str | None
    """Of the student's weights: that of the model they grew from."""
    data: str
    """One sentence on the training text."""
    terms: str
    """One sentence: under which terms the teacher's outputs trained the student."""
    recipe_sha256: str
    is_taught: bool = True
    """Whether it learnt what the teacher said; False for one that learnt the answers of its corpus."""
    teacher_licence: str | None = None
    """Of the teacher, where it is not the student's."""


def model_card(origin: Origin, record: BuildRecord, report: Mapping[str, Any] | None = None) -> str:
    """Return a model card: Markdown with the YAML front matter that the Hugging Face hub reads.

    Args:
        origin: Where the student comes from.
        record: How it was built.
        report: A run's `report.json`; without it the card has no figures. Figures that it lacks are left
            out, none is made up.
    """
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(origin), sort_keys=False, allow_unicode=True)}---",
        f"# {origin.name}",
        _opening(origin),
        _lineage(origin),
        _building(record),
        _figures(report or {}),
        _LOADING,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(origin: Origin) -> dict[str, Any]:
    front: dict[str, Any] = {}
    if origin.licence is not None and origin.licence.lower() in _HUB_LICENCES:
        front["license"] = origin.licence.lower()
    elif origin.licence is not None:
        front |= {"license": "other", "license_name": origin.licence}
    base = _BASE_MODELS.get(origin.teacher)
    if origin.teacher.startswith("hf:"):
        base = origin.teacher.removeprefix("hf:").partition("@")[0]
    if base is not None:
        front["base_model"] = base
    return front | {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "limbeck"],
    }


def _opening(origin: Origin) -> str:
    if origin.is_taught:
        return f"A student of `{origin.teacher}`, distilled with Limbeck."
    return (
        f"Trained with Limbeck on the answers of its corpus; `{origin.teacher}` was asked nothing."
    )


def _lineage(origin: Origin) -> str:
    source = f", from {origin.teacher_source}" if origin.teacher_source else ""
    weights = (
        "its weights are behind an API and not known"
        if origin.teacher_sha256 is None
        else f"weights SHA-256 `{origin.teacher_sha256}`"
    )
    return "\n".join(
        (
            "## Lineage",
            "",
            f"- Teacher: `{origin.teacher}`{source}; {weights}",
            f"- Licence of the teacher: {origin.teacher_licence or origin.licence or 'not stated'}",
            f"- Data: {origin.data}",
            f"- Terms: {origin.terms}",
            f"- Recipe SHA-256: `{origin.recipe_sha256}`",
        )
    )


def _building(record: BuildRecord) -> str:
    stock = "the teacher" if record.stock is None else f"`{record.stock}`, from which it grew,"
    lines = [
        "## Building",
        "",
        f"- {record.parameters:,} parameters; {stock} has {record.teacher_parameters:,}",
        f"- {record.layers} layers; {stock} has {record.teacher_layers}",
    ]
    if record.kept_layers is not None:
        kept = ", ".join(map(str, record.kept_layers))
        lines.append(f"- Start: pruned out of {stock}, whose layers {kept} it kept")
    elif record.init == "scratch":
        lines.append("- Start: fresh weights")
    else:
        lines.append("- Start: a given model")
    lines.extend(f"- Note: {note}" for note in record.notes)
    return "\n".join(lines)


_HELDOUT_ROWS = (
    ("teacher", "Teacher"),
    ("student", "Student"),
    ("cross_entropy", "Control: trained with cross-entropy"),
    ("undistilled", "Control: undistilled start"),
)
_HELDOUT_COLUMNS = (
    ("kl_mean", "KL from the teacher (nats)"),
    ("top1_agreement", "top-1 agreement"),
    ("perplexity", "perplexity"),
)
_ACROSS_COLUMNS = (
    ("label_kl", "label KL from the teacher (nats)"),
    ("label_agreement", "label agreement"),
    ("bits_per_byte", "bits per byte"),
)
"""In their place between tokenizers, where figures per token are not defined."""


def _figures(report: Mapping[str, Any]) -> str:
    heldout: Mapping[str, Any] = report.get("heldout") or {}
    columns = _ACROSS_COLUMNS if "across" in heldout else _HELDOUT_COLUMNS
    rows = [
        [label, *(_number(heldout[key].get(column)) for column, _ in columns)]
        for key, label in _HELDOUT_ROWS
        if heldout.get(key)
    ]
    lines: list[str] = []
    if rows:
        head = ["On held-out text", *(title for _, title in columns)]
        rule = ["---", *("---:" for _ in columns)]
        lines += [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]
    speed: Mapping[str, Any] = report.get("speed_ratio") or {}
    if "median" in speed:
        span = (
            f" ({speed['low']:.2f} to {speed['high']:.2f})" if {"low", "high"} <= set(speed) else ""
        )
        lines += ["", f"Generation speed over the teacher's: {speed['median']:.2f}x{span}."]
    return "\n".join(["## Figures", "", *lines]).replace("\n\n\n", "\n\n") if lines else ""


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""


_LOADING = """## Loading

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```"""
