"""The benchmarks of students, on a model small enough to run all of them."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from limbeck.backends import load
from limbeck.distill.recipe import Recipe, parse_recipe
from limbeck.distill.targets import Taught
from limbeck.model import LocalModel

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def module(name: str) -> ModuleType:
    """Import a benchmark as its command would, its folder first on the path."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def vocabulary(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "vocabulary", ModuleType("vocabulary"))
    return module("vocabulary")


@pytest.fixture
def teacher(tiny_teacher_folder: Path) -> LocalModel:
    return load(str(tiny_teacher_folder), dtype="float32")


@pytest.fixture
def recipe() -> Recipe:
    return parse_recipe(
        {
            "name": "x",
            "teacher": {"model": "tiny", "dtype": "float32"},
            "corpus": {
                "template": "Say {what}.",
                "slots": {"what": ["river", "mill", "oven", "bread", "Anna", "Monday"]},
                "heldout_fraction": 0.5,
                "max_length": 64,
            },
            "generate": {"max_new_tokens": 12, "batch": 6},
            "student": {"layers": 2},
            "train": {"row_length": 64, "rows": 2, "precision": "no"},
        }
    )


@pytest.fixture
def taught(vocabulary: ModuleType, teacher: LocalModel, recipe: Recipe) -> list[Taught]:
    return vocabulary.answers(teacher, recipe)


def test_a_trim_spends_what_it_saves_on_layers(
    vocabulary: ModuleType, teacher: LocalModel, recipe: Recipe, taught: list[Taught]
) -> None:
    other = "Kupfer glänzt; the still drips. " * 20
    said: list[str] = []
    found = vocabulary.measure(teacher, taught, recipe, other, 300, 1, 1, said.append)
    arms, (run,) = found["arms"], found["runs"]
    assert arms["same layers"]["tokens"] == arms["same parameters"]["tokens"] == 300
    assert arms["corpus"]["tokens"] < 400
    assert arms["same layers"]["parameters"] < arms["full"]["parameters"]
    assert arms["same parameters"]["parameters"] <= arms["full"]["parameters"]
    assert len(said) == len(arms)
    for name in arms:
        assert run[name]["kl"][0] > 0
        assert run["other"][name]["nats_per_byte"] > 0
    assert run["other"]["corpus"]["tokens_per_byte"] > run["other"]["full"]["tokens_per_byte"]
    assert run["same parameters"]["lost_mass"] > 0
    vocabulary.table(found | {"quick": True})
    json.dumps(found)


def test_heads_are_dropped_as_if_they_said_nothing(
    vocabulary: ModuleType, teacher: LocalModel, recipe: Recipe, taught: list[Taught]
) -> None:
    """Against zeros in the columns that read them."""
    assert vocabulary
    shapes = module("shapes")
    documents = [t.document for t in taught]
    small, zeroed = (
        load(str(Path(teacher.name)), dtype="float32").model,
        load(str(Path(teacher.name)), dtype="float32").model,
    )
    activity = shapes.group_activity(small, documents)
    assert [len(a) for a in activity] == [2] * 4
    shapes.drop_groups(small, activity, 1)
    with torch.no_grad():
        for layer, activity_G in zip(zeroed.model.layers, activity, strict=True):
            gone = int(activity_G.argmin())
            layer.self_attn.o_proj.weight[:, gone * 32 : (gone + 1) * 32] = 0
        tokens = torch.from_numpy(documents[0].tokens_T).long()[None]
        torch.testing.assert_close(small(tokens).logits, zeroed(tokens).logits)
    said: list[str] = []
    found = shapes.measure(teacher, taught, recipe, 2, 1, said.append)
    assert len(said) == len(found["shapes"])
    sizes = [shape["parameters"] for shape in found["shapes"].values()]
    assert np.ptp(sizes) < 0.35 * max(sizes)
    assert found["runs"][0]["depth"]["kl"][0] > 0
    shapes.table(found | {"quick": True})
    json.dumps(found)


def test_every_export_is_run_and_compared(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    benchmark = module("export")
    found: dict[str, Any] = benchmark.measure(
        str(tiny_teacher_folder), ["gguf/f32", "gguf/q4_0"], 4, tmp_path, Console(quiet=True)
    )
    formats = found["formats"]
    assert formats["transformers float32"]["kl_mean"] == 0
    assert formats["gguf/f32"]["kl_mean"] < 1e-3 < formats["gguf/q4_0"]["kl_mean"]
    assert formats["gguf/q4_0"]["bytes"] < formats["gguf/f32"]["bytes"]
    assert all(row["tokens_per_s"][0] > 0 for row in formats.values())
    benchmark.table(found)
    json.dumps(found)
