"""The bill of materials of a student: a CycloneDX 1.6 ML-BOM that other tools can read and check.

Written as plain JSON, for cyclonedx-python-lib has no model cards and no data components; from it come the SPDX
identifiers and, in the tests, the strict check against the schema.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cyclonedx import spdx

from limbeck.artefact import sha256_json
from limbeck.terms import Terms

Json = dict[str, Any]

_TEACHER, _STUDENT, _CORPUS, _TARGETS = "teacher", "student", "corpus", "targets"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "limbeck")


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A model in the bill: teacher or student."""

    name: str
    sha256: str | None
    """SHA-256 over its weights, lower-case hexadecimal; None where they are behind an API."""
    licence: str | None = None
    """SPDX identifier or name."""
    source: str | None = None
    """Where the weights came from."""
    parameters: int | None = None
    architecture: str | None = None
    """Such as `LlamaForCausalLM`."""


@dataclass(frozen=True, slots=True)
class DataPart:
    """Data in the bill: the corpus, or the store of targets."""

    name: str
    sha256: str
    """SHA-256 over its content, lower-case hexadecimal."""
    description: str
    licence: str | None = None
    """SPDX identifier or name."""
    counts: tuple[tuple[str, int], ...] = ()
    """Named counts, such as documents and tokens."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Everything that the bill of one run says."""

    recipe: str
    """Name of the recipe."""
    recipe_sha256: str
    version: str
    """Limbeck's version."""
    made_at: datetime
    """When the student was finished; aware."""
    teacher: ModelPart
    student: ModelPart
    corpus: DataPart
    targets: DataPart
    terms: Terms
    """Terms under which the teacher's outputs were used."""
    metrics: tuple[tuple[str, float], ...] = ()
    """Held-out measurements of the student, for its model card."""


def lineage_bom(lineage: Lineage) -> str:
    """Return the bill of materials as CycloneDX 1.6 JSON; equal lineages give equal text.

    The student depends on the teacher, the corpus and the targets; the targets depend on the teacher and the
    corpus. The serial number comes from a hash of the content, the timestamp included.

    Raises:
        ValueError: `made_at` has no time zone, or a hash is not a SHA-256.
    """
    if lineage.made_at.tzinfo is None:
        raise ValueError(f"lineage.made_at must be aware, got {lineage.made_at.isoformat()}")
    content: Json = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": lineage.made_at.isoformat(),
            "tools": {
                "components": [
                    {"type": "application", "name": "limbeck", "version": lineage.version}
                ]
            },
            "properties": _properties(
                {
                    "limbeck:recipe:name": lineage.recipe,
                    "limbeck:recipe:sha256": lineage.recipe_sha256,
                }
            ),
        },
        "components": _components(lineage),
        "dependencies": [
            {"ref": _STUDENT, "dependsOn": [_TEACHER, _CORPUS, _TARGETS]},
            {"ref": _TARGETS, "dependsOn": [_TEACHER, _CORPUS]},
            {"ref": _TEACHER},
            {"ref": _CORPUS},
        ],
    }
    content["serialNumber"] = uuid.uuid5(_NAMESPACE, sha256_json(content)).urn
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _components(lineage: Lineage) -> list[Json]:
    terms = {f"limbeck:terms:{key}": value for key, value in lineage.terms.as_dict().items()}
    teacher, student = lineage.teacher, lineage.student
    card = _card(student, (_CORPUS, _TARGETS), lineage.metrics)
    return [
        _model(_TEACHER, teacher, "The model that was imitated.", _card(teacher, (), ()), terms),
        _model(_STUDENT, student, "The model that imitates it.", card, {}),
        _data(_CORPUS, lineage.corpus),
        _data(_TARGETS, lineage.targets),
    ]


def _model(
    ref: str, part: ModelPart, description: str, card: Json, more: Mapping[str, str | None]
) -> Json:
    facts = {"limbeck:source": part.source, "limbeck:parameters": _text(part.parameters)}
    return {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": part.name,
        "description": description,
        "hashes": _hashes(part.sha256),
        "licenses": _licences(part.licence),
        "modelCard": card,
        "properties": _properties({**facts, **more}),
    }


def _data(ref: str, part: DataPart) -> Json:
    return {
        "type": "data",
        "bom-ref": ref,
        "name": part.name,
        "description": part.description,
        "hashes": _hashes(part.sha256),
        "licenses": _licences(part.licence),
        "data": [{"type": "dataset", "name": part.name}],
        "properties": _properties({f"limbeck:count:{k}": _text(v) for k, v in part.counts}),
    }


def _card(part: ModelPart, trained_on: Sequence[str], metrics: Sequence[tuple[str, float]]) -> Json:
    parameters: Json = {"task": "text-generation"}
    if part.architecture is not None:
        parameters["modelArchitecture"] = part.architecture
    if trained_on:
        parameters["datasets"] = [{"ref": ref} for ref in trained_on]
    card: Json = {"modelParameters": parameters}
    if metrics:
        measured = [{"type": name, "value": repr(value)} for name, value in metrics]
        card["quantitativeAnalysis"] = {"performanceMetrics": measured}
    return card


def _hashes(sha256: str | None) -> list[Json]:
    if sha256 is None:
        return []
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ValueError(f"lineage needs SHA-256 hashes in lower-case hexadecimal, got {sha256!r}")
    return [{"alg": "SHA-256", "content": sha256}]


def _licences(name: str | None) -> list[Json]:
    if name is None:
        return []
    identifier = spdx.fixup_id(name)
    return [{"license": {"id": identifier} if identifier else {"name": name}}]


def _properties(facts: Mapping[str, str | None]) -> list[Json]:
    return [{"name": k, "value": v} for k, v in sorted(facts.items()) if v is not None]


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
