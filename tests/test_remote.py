from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import limbeck
from fakeapi import TinyChat, serve
from limbeck.artefact import read_json
from limbeck.backends import load
from limbeck.distill.recipe import Recipe, parse_recipe
from limbeck.model import LocalModel

SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"


@pytest.fixture(scope="module")
def tiny(tiny_teacher_folder: Path) -> LocalModel:
    return load(str(tiny_teacher_folder), dtype="float32")


def recipe(url: str, base: Path, **changes: Any) -> Recipe:
    raw: dict[str, Any] = {
        "name": "remote",
        "teacher": {
            "model": "openai:m",
            "dtype": "float32",
            "api": {"base_url": url, "limits": {"concurrency": 2}},
            "terms": {"licence": "Apache-2.0"},
        },
        "corpus": {
            "template": "Say {what} to {whom}.",
            "slots": {
                "what": ["hello", "thanks", "goodbye"],
                "whom": ["Anna", "the baker", "a friend", "the mill"],
            },
            "heldout_fraction": 0.3,
            "max_length": 96,
        },
        "generate": {"max_new_tokens": 8},
        "student": {"layers": 2, "base": str(base)},
        "loss": {"kind": "cross_entropy"},
        "train": {"epochs": 2.0, "row_length": 96, "rows": 2, "precision": "no"},
        "evaluate": {"speed_rounds": 3, "speed_tokens": 2, "samples": 1, "documents": 8},
    }
    for dotted, value in changes.items():
        *sections, last = dotted.split("__")
        target = raw
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return parse_recipe(raw)


def test_text_alone(tiny: LocalModel, tiny_teacher_folder: Path, tmp_path: Path) -> None:
    with serve(TinyChat(tiny)) as api:
        run = limbeck.distill(recipe(api.url, tiny_teacher_folder), out=tmp_path / "run")
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    import json
    print(json.dumps(report["headline"], indent=1), report["unmeasured"], report["heldout"], report["store"], report["api"], report["corpus"])


def test_top(tiny: LocalModel, tiny_teacher_folder: Path, tmp_path: Path) -> None:
    with serve(TinyChat(tiny)) as api:
        run = limbeck.distill(recipe(api.url, tiny_teacher_folder, loss__kind="forward_kl", teacher__api__top_logprobs=5), out=tmp_path / "run")
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    import json
    print(json.dumps(report["headline"], indent=1), report["unmeasured"], report["heldout"], report["store"], report["corpus"])


def test_scores(tiny: LocalModel, tiny_teacher_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n\n".join("The river runs past the mill %d. " % i * 60 for i in range(30)))
    with serve(TinyChat(tiny)) as api:
        run = limbeck.distill(recipe(api.url, tiny_teacher_folder, loss__kind="forward_kl", teacher__api__prompt_logprobs=5, generate=None, corpus={"files": ["t.txt"], "max_length": 96, "heldout_fraction": .3}), out=tmp_path / "run", base=tmp_path)
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    import json
    print(json.dumps(report["headline"], indent=1), report["unmeasured"], report["heldout"]["teacher"], report["store"], report["corpus"])
