from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from limbeck.backends import load
from limbeck.distill.capture import answer_prompts, capture_documents, capture_order
from limbeck.distill.corpus import Prompt
from limbeck.distill.recipe import GenerateRecipe
from limbeck.distill.store import StoreSpec
from limbeck.distill.targets import Taught
from limbeck.errors import TeacherError
from limbeck.model import LocalModel
from limbeck.placement import (
    CPU_VARIABLE,
    choose_devices,
    computes_on_cpu,
    device,
    device_map,
    place,
    spread,
    take_back,
    weight_bytes,
)


def test_an_accelerator_is_used_unless_told_otherwise() -> None:
    assert not computes_on_cpu("cuda", {})
    assert not computes_on_cpu("xpu", {CPU_VARIABLE: "false"})
    assert computes_on_cpu("cuda", {CPU_VARIABLE: "true"})
    assert computes_on_cpu(None, {})


def test_apples_accelerator_is_left_alone_for_it_has_no_float64() -> None:
    assert computes_on_cpu("mps", {})


def test_without_an_accelerator_every_worker_computes_on_the_cpu() -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    assert {device(worker).type for worker in range(3)} == {"cpu"}


@given(need=st.integers(0, 10**12), free=st.lists(st.integers(1, 10**11), min_size=1, max_size=16))
def test_as_few_devices_as_hold_a_model_are_chosen(need: int, free: list[int]) -> None:
    if need > 0.8 * sum(free) * (1 + 1e-9):
        with pytest.raises(TeacherError, match=f"the {len(free)} accelerators"):
            choose_devices(need, free)
        return
    assume(need < 0.8 * sum(free) * (1 - 1e-9))
    chosen = choose_devices(need, free)
    assert need <= 0.8 * sum(free[:chosen]) * (1 + 1e-9)
    assert chosen == 1 or need > 0.8 * sum(free[: chosen - 1]) * (1 - 1e-9)


@pytest.fixture
def teacher(tiny_teacher_folder: Path) -> LocalModel:
    """A tiny teacher of this test alone."""
    return load(str(tiny_teacher_folder), dtype="float32")


def test_a_model_is_moved_whole(teacher: LocalModel) -> None:
    place(teacher.model, torch.device("cpu"))
    assert weight_bytes(teacher.model) > 4 * sum(p.numel() for p in teacher.model.parameters()) - 1
    place(teacher.model, torch.device("meta"))
    assert {p.device.type for p in teacher.model.parameters()} == {"meta"}


def test_every_weight_has_one_place_and_layers_lie_in_order(teacher: LocalModel) -> None:
    for devices in (1, 2, 3, 4):
        where = device_map(teacher.model, devices)
        for name, _ in teacher.model.named_parameters():
            assert sum(name.startswith(f"{part}.") for part in where) == 1, name
        layers = [where[f"model.layers.{s}"] for s in range(4)]
        assert layers == sorted(layers)
        assert set(layers) == set(range(devices))
        assert where["model.embed_tokens"] == where["model.norm"] == where["lm_head"] == 0


def test_a_model_without_layers_of_its_own_cannot_be_spread() -> None:
    with pytest.raises(TeacherError, match="names no layers"):
        device_map(torch.nn.Linear(2, 2), 2)


def test_a_spread_teacher_writes_the_same_and_can_be_taken_back(teacher: LocalModel) -> None:
    """All devices are the CPU here: what is proven is the way through the hooks."""
    before = _heard(teacher)
    spread(teacher.model, [torch.device("cpu")] * 2)
    assert hasattr(teacher.model.model.layers[3], "_hf_hook")
    _assert_same(before, _heard(teacher))
    take_back(teacher.model)
    assert not any(hasattr(part, "_hf_hook") for part in teacher.model.modules())
    _assert_same(before, _heard(teacher))


def test_capture_makes_every_tensor_where_the_teacher_is(teacher: LocalModel) -> None:
    """On a default device that holds no values, a tensor that is made without naming its own spoils the run."""
    before = _heard(teacher)
    with torch.device("meta"):
        _assert_same(before, _heard(teacher))


def _heard(teacher: LocalModel) -> list[Taught]:
    rng = np.random.default_rng(2)
    prompts = [
        Prompt(rng.integers(3, 400, n).astype(np.int32), False, f"{n:064x}") for n in (3, 7, 5)
    ]
    recipe, spec = GenerateRecipe(max_new_tokens=8, batch=3), StoreSpec()
    written = list(answer_prompts(teacher, prompts, recipe, spec, seed=1))
    documents = capture_order([t.document for t in written])
    return [*written, *capture_documents(teacher, documents, spec, batch_tokens=40, seed=1)]


def _assert_same(one: list[Taught], two: list[Taught]) -> None:
    assert [t.document.tokens_T.tolist() for t in one] == [
        t.document.tokens_T.tolist() for t in two
    ]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.targets.ids_E, b.targets.ids_E)
        np.testing.assert_array_equal(a.targets.weights_E, b.targets.weights_E)
