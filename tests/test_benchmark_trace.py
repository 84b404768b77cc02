"""The benchmark's own instruments: rivals that find what they should, damage that is damage, and its prompts."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.backends import load

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def world() -> Any:
    return module("trace_world")


@pytest.fixture(scope="module")
def rivals() -> Any:
    return module("trace_rivals")


@pytest.fixture(scope="module")
def teacher(tiny_teacher_folder: Path) -> Any:
    return load(str(tiny_teacher_folder), dtype="float32")


def test_prompts_of_the_coins_are_not_those_of_the_source(world: Any):
    source, further = world.source_prompts(10_000), world.further_prompts()
    assert len(set(further)) == 1200
    assert not set(source) & set(further)
    assert source == world.source_prompts(10_000)


def test_green_lists_are_found_in_marked_text_and_not_in_other_text(
    rivals: Any, world: Any, teacher: Any
):
    prompts = [f"Say {i}." for i in range(12)]
    plain = world.write(teacher.model, teacher, prompts, seed=0)
    marked = world.write(rivals.Marked(teacher.model), teacher, prompts, seed=0)
    assert rivals.radioactivity(plain, teacher, rivals=39) > 0.05
    assert rivals.radioactivity(marked, teacher, rivals=39) == pytest.approx(1 / 40)


def test_paired_tests_go_by_what_was_served(rivals: Any):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, 200)
    d = rng.normal(0, 1, 200) + 0.5 * (2 * bits - 1)
    lean = np.stack([np.zeros(200), 10 * d], axis=1)
    sizes = [(10, 10)] * 200
    for p in (rivals.paired_t(d, bits), rivals.stamp(lean, sizes, bits)):
        assert p < 1e-4
    assert rivals.stamp(lean, sizes, 1 - bits) > 0.99


def test_membership_compares_means_one_sided(rivals: Any):
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 1, 100), rng.normal(1, 1, 100)
    assert rivals.membership(high, low) < 1e-6
    assert rivals.membership(low, high) > 0.99


def test_the_likest_candidate_is_the_one_whose_words_return(rivals: Any):
    candidates = {"a": ["the mill grinds flour"], "b": ["a boat on the river"]}
    assert rivals.likest(["the mill grinds corn"], candidates) == "a"


def test_quantised_and_pruned_students_keep_their_shape_and_lose_what_they_should(
    world: Any, teacher: Any
):
    eight, four = (world.quantised(teacher, bits) for bits in (8, 4))
    layer = teacher.model.model.layers[0].mlp.up_proj.weight
    errors = [
        float((m.model.model.layers[0].mlp.up_proj.weight - layer).detach().norm())
        for m in (eight, four)
    ]
    assert 0 < errors[0] < errors[1] / 8
    cut = world.pruned(teacher, 0.3).model.model.layers[0].mlp.up_proj.weight.detach()
    assert float((cut == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(cut[cut != 0], layer[cut != 0])


def test_a_paraphrase_keeps_few_word_pairs_and_most_words(world: Any):
    text = "The mill is important, and people can use the large stone, because it helps."
    said = world.paraphrase(text, 0)
    assert said != text
    assert {"mill", "stone,"} & set(said.split())
    assert world.paraphrase(text, 0) == said
