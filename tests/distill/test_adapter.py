"""Adapters: silent at first, alone in learning, and the same model once merged."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("peft")

from limbeck.artefact import hash_tree, read_json
from limbeck.distill.adapter import (
    add_adapters,
    check_adapters,
    count_trainable,
    merge_adapters,
    save_adapters,
)
from limbeck.distill.objective import LossSpec
from limbeck.distill.recipe import LoraRecipe, TrainRecipe
from limbeck.distill.student import save_student
from limbeck.distill.targets import Taught
from limbeck.distill.train import train
from limbeck.errors import MissingDependencyError, RecipeError
from limbeck.model import LocalModel
from limbeck.progress import Silent

KINDS = [LoraRecipe(rank=4), LoraRecipe(rank=2, dora=True, targets=("q_proj", "down_proj"))]
TRAIN = TrainRecipe(
    epochs=3.0, row_length=64, rows=2, precision="no", learning_rate=5e-3, checkpoint_every=3
)


@pytest.fixture
def model(tiny_teacher: LocalModel) -> Any:
    return copy.deepcopy(tiny_teacher.model)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(torch.tensor([[5, 6, 7, 8, 9]])).logits


def fit(model: Any, taught: list[Taught], folder: Path, *, resume: bool = False) -> None:
    train(
        model, taught, TRAIN, LossSpec(), folder, seed=3, resume=resume, progress=Silent()
    )  # to the tiny teacher itself from a damaged start, so that there is something to learn


def damage(model: Any) -> Any:
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(0.5)
    return model


@pytest.mark.parametrize("lora", KINDS)
def test_new_adapters_change_no_logit_and_alone_are_trained(lora: LoraRecipe, model: Any) -> None:
    before, names = logits(model), {n for n, _ in model.named_parameters()}
    state = torch.get_rng_state()
    add_adapters(model, lora, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=0)
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)
    assert not learning & names


@pytest.mark.parametrize("lora", KINDS)
def test_merged_equals_unmerged_to_float_error(
    lora: LoraRecipe, model: Any, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    start = logits(damage(model))
    adapters = add_adapters(model, lora, seed=0)
    fit(model, tiny_taught, tmp_path)
    apart = logits(model)
    assert (apart - start).abs().max() > 0.05
    merged = merge_adapters(adapters)
    assert merged is model
    assert not [n for n, _ in merged.named_modules() if "lora" in n]
    torch.testing.assert_close(logits(merged), apart, atol=2e-5, rtol=1e-5)


def test_the_frozen_base_stays_as_it_is_to_the_bit(
    model: Any, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    adapters = add_adapters(model, KINDS[0], seed=0)
    fit(model, tiny_taught, tmp_path)
    after = adapters.wrapper.unload().state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_a_training_that_was_stopped_ends_in_the_same_adapters_to_the_bit(
    tiny_teacher: LocalModel,
    tiny_taught: list[Taught],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(folder: str, *, resume: bool = False) -> Any:
        student = damage(copy.deepcopy(tiny_teacher.model))
        add_adapters(student, KINDS[1], seed=1)
        fit(student, tiny_taught, tmp_path / folder, resume=resume)
        return student

    whole = run("whole").state_dict()
    from limbeck.distill import train as loop

    steps = iter(range(100))
    record = loop.append_log  # pyright: ignore[reportPrivateUsage]

    def stop(folder: Path, entry: Any) -> None:
        if next(steps) == 5:
            raise KeyboardInterrupt
        record(folder, entry)

    monkeypatch.setattr(loop, "append_log", stop)
    with pytest.raises(KeyboardInterrupt):
        run("cut")
    monkeypatch.undo()
    resumed = run("cut", resume=True).state_dict()
    assert all(torch.equal(resumed[k], whole[k]) for k in whole)


def test_saved_adapters_and_base_are_the_merged_model(
    model: Any, tiny_taught: list[Taught], tmp_path: Path, tiny_teacher: LocalModel
) -> None:
    from peft import PeftModel

    base = damage(copy.deepcopy(model))
    adapters = add_adapters(damage(model), KINDS[1], seed=0)
    fit(model, tiny_taught, tmp_path / "log")
    save_adapters(adapters, tmp_path / "adapter", base="controls/undistilled")
    with pytest.warns(FutureWarning):  # peft's, of a name that transformers will change
        loaded = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    merged = merge_adapters(adapters)
    torch.testing.assert_close(logits(loaded), logits(merged), atol=2e-5, rtol=1e-5)
    config = read_json(tmp_path / "adapter" / "adapter_config.json")
    assert config["base_model_name_or_path"] is None
    assert "controls/undistilled" in (tmp_path / "adapter" / "README.md").read_text()

    save_student(merged, tiny_teacher.tokenizer, tmp_path / "student", card="-")
    code = (
        "import sys; sys.modules['peft'] = None; sys.modules['limbeck'] = None\n"
        "from transformers import AutoModelForCausalLM\nimport torch\n"
        f"m = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'student')!r})\n"
        "print(float(m(torch.tensor([[5, 6, 7, 8, 9]])).logits.double().sum()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(said.stdout) == pytest.approx(float(logits(merged).double().sum()), abs=1e-2)


def test_saving_twice_writes_the_same_files(model: Any, tmp_path: Path) -> None:
    adapters = add_adapters(model, KINDS[0], seed=0)
    for name in ("one", "two"):
        save_adapters(adapters, tmp_path / name, base="b")
    assert hash_tree(tmp_path / "one") == hash_tree(tmp_path / "two")


def test_counting_leaves_the_model_alone(model: Any) -> None:
    model.get_input_embeddings().weight.requires_grad_(False)
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    config = model.config
    per_layer = config.hidden_size * 2 + config.hidden_size + config.intermediate_size
    assert count_trainable(model, LoraRecipe(rank=3, targets=("q_proj", "down_proj"))) == (
        3 * per_layer * config.num_hidden_layers
    )
    assert {n: p.requires_grad for n, p in model.named_parameters()} == before


def test_a_target_that_is_not_there_is_named_even_beside_one_that_is(model: Any) -> None:
    with pytest.raises(RecipeError, match=r"targets names w_proj, .* it has down_proj, gate_proj"):
        check_adapters(LoraRecipe(targets=("q_proj", "w_proj")), model)
    with pytest.raises(RecipeError, match="targets names lm_head"):
        check_adapters(LoraRecipe(targets=("lm_head",)), model)


def test_without_peft_the_install_command_is_named(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'limbeck\[lora\]'"):
        check_adapters(LoraRecipe(), model)
