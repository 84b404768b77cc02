"""Tests of pruning on a real, tiny Llama."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from limbeck.distill import prune
from limbeck.distill.targets import Document
from limbeck.errors import RecipeError, StudentError

TEXTS = (
    "The river runs past the mill and under the old stone bridge.",
    "A baker weighs flour, water and salt before the town wakes up.",
    "In 1850 the station had 12 clocks, and no two of them agreed.",
)


def document(tokens: Sequence[int], *, answer_from: int = 0) -> Document:
    loss_T = np.zeros(len(tokens), dtype=np.bool_)
    loss_T[answer_from:-1] = True
    return Document(np.array(tokens, dtype=np.int32), loss_T, heldout=False, key="k")


@pytest.fixture(scope="session")
def calibration(tiny_tokenizer: Any) -> list[Document]:
    return [document(tiny_tokenizer(text)["input_ids"], answer_from=4) for text in TEXTS]


@pytest.fixture
def model(tiny_teacher_folder: Path) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(tiny_teacher_folder, dtype=torch.float32)
    return loaded.eval()


@torch.no_grad()
def logits(model: Any, documents: Sequence[Document]) -> Tensor:
    ids = [torch.from_numpy(d.tokens_T).long()[None] for d in documents]
    return torch.cat([model(ids_BT).logits[0] for ids_BT in ids])


@torch.no_grad()
def silence(layer: Any) -> None:
    """Make a layer pass its input on unchanged."""
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()


def test_a_layer_that_does_nothing_has_no_importance_and_goes_first(
    model: Any, calibration: list[Document]
) -> None:
    silence(model.model.layers[2])
    importance_S = prune.measure(model, calibration, neurons=False).importance_S
    assert importance_S[2] == pytest.approx(0, abs=1e-6)
    assert min(importance_S[s] for s in (0, 1, 3)) > 1e-3
    assert prune.choose_layers(importance_S, 3, "importance") == (0, 1, 3)


def test_dropping_a_layer_that_does_nothing_leaves_the_logits_alone(
    model: Any, calibration: list[Document]
) -> None:
    silence(model.model.layers[2])
    pruned = prune.keep_layers(model, (0, 1, 3))
    assert torch.equal(logits(pruned, calibration), logits(model, calibration))


def test_importance_is_the_cosine_of_hidden_states_at_loss_positions(
    model: Any, calibration: list[Document]
) -> None:
    one = calibration[0]
    with torch.no_grad():
        states = model(
            torch.from_numpy(one.tokens_T).long()[None], output_hidden_states=True
        ).hidden_states
    mask_T = torch.from_numpy(one.loss_T)
    before_ND, after_ND = states[1][0][mask_T], states[2][0][mask_T]
    expected = 1 - float(torch.cosine_similarity(before_ND, after_ND, dim=-1).mean())
    measured = prune.measure(model, [one], neurons=False)
    assert measured.importance_S[1] == pytest.approx(expected, abs=1e-5)
    assert measured.positions == one.positions


def test_positions_without_loss_do_not_count(model: Any, calibration: list[Document]) -> None:
    silent = document([1, 2, 3], answer_from=3)
    assert silent.positions == 0
    with_silent = prune.measure(model, [*calibration, silent], neurons=True)
    without = prune.measure(model, calibration, neurons=True)
    assert with_silent.importance_S == without.importance_S


def test_measuring_leaves_no_hook_behind(model: Any, calibration: list[Document]) -> None:
    prune.measure(model, calibration, neurons=True)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_measuring_without_loss_positions_is_an_error(model: Any) -> None:
    with pytest.raises(StudentError, match="0 calibration documents hold no loss position"):
        prune.measure(model, [], neurons=False)


def test_all_layers_kept_is_the_same_model_to_the_bit(
    model: Any, calibration: list[Document]
) -> None:
    pruned = prune.keep_layers(model, range(4))
    assert torch.equal(logits(pruned, calibration), logits(model, calibration))


def test_kept_layers_are_the_teachers_and_the_teacher_is_untouched(model: Any) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pruned = prune.keep_layers(model, (1, 3))
    for mine, theirs in enumerate((1, 3)):
        for name, weight in pruned.model.layers[mine].state_dict().items():
            assert torch.equal(weight, before[f"model.layers.{theirs}.{name}"])
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.zero_()
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.config.num_hidden_layers == 4
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2, 3]


def test_a_pruned_model_counts_its_layers_anew(model: Any) -> None:
    model.config.layer_types = ["full_attention", "b", "full_attention", "d"]
    pruned = prune.keep_layers(model, (1, 3))
    assert pruned.config.num_hidden_layers == 2
    assert pruned.config.layer_types == ["b", "d"]
    assert [layer.self_attn.layer_idx for layer in pruned.model.layers] == [0, 1]
    assert pruned.model.config is pruned.config


def test_a_pruned_model_generates_with_its_cache_as_without(model: Any) -> None:
    pruned = prune.keep_layers(model, (0, 3))
    ids_BT = torch.tensor([[5, 6, 7]])
    arguments = {"attention_mask": torch.ones_like(ids_BT), "do_sample": False, "max_new_tokens": 8}
    cached = pruned.generate(ids_BT, use_cache=True, **arguments)
    assert torch.equal(cached, pruned.generate(ids_BT, use_cache=False, **arguments))


def test_tied_embeddings_stay_tied(model: Any) -> None:
    pruned = prune.keep_layers(model, (0, 3))
    assert pruned.lm_head.weight is pruned.model.embed_tokens.weight
    assert pruned.lm_head.weight is not model.lm_head.weight


def test_all_neurons_kept_is_the_same_model_to_the_bit(
    model: Any, calibration: list[Document]
) -> None:
    pruned = prune.keep_layers(model, range(4))
    prune.keep_neurons(pruned, [torch.arange(128)] * 4)
    assert torch.equal(logits(pruned, calibration), logits(model, calibration))


def test_neurons_that_add_nothing_go_first_and_leave_the_logits_alone(
    model: Any, calibration: list[Document]
) -> None:
    dead = torch.arange(0, 128, 2)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight[:, dead] = 0
    activity_SF = prune.measure(model, calibration, neurons=True).activity_SF
    assert activity_SF is not None
    kept = [prune.choose_neurons(activity_F, 64) for activity_F in activity_SF]
    assert all(torch.equal(k, torch.arange(1, 128, 2)) for k in kept)
    pruned = prune.keep_layers(model, range(4))
    prune.keep_neurons(pruned, kept)
    assert pruned.config.intermediate_size == 64
    assert pruned.model.layers[0].mlp.down_proj.weight.shape == (64, 64)
    torch.testing.assert_close(logits(pruned, calibration), logits(model, calibration))


def test_activity_is_the_mean_size_of_what_a_neuron_adds(
    model: Any, calibration: list[Document]
) -> None:
    one = calibration[0]
    seen: list[Tensor] = []
    mlp = model.model.layers[0].mlp

    def note(_module: object, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0][0])

    handle = mlp.down_proj.register_forward_pre_hook(note)
    logits(model, [one])
    handle.remove()
    inner_NF = seen[0][torch.from_numpy(one.loss_T)]
    added_NFD = inner_NF[:, :, None] * mlp.down_proj.weight.detach().T
    expected_F = added_NFD.norm(dim=-1).mean(0)
    activity_SF = prune.measure(model, [one], neurons=True).activity_SF
    assert activity_SF is not None
    torch.testing.assert_close(activity_SF[0].float(), expected_F, rtol=1e-4, atol=1e-6)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=40), st.data())
def test_chosen_layers_are_ascending_distinct_and_as_many_as_asked(
    importance: list[float], data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, len(importance)))
    for choice in ("importance", "even"):
        kept = prune.choose_layers(importance, n, choice)
        assert len(kept) == n
        assert list(kept) == sorted(set(kept))
        assert set(kept) <= set(range(len(importance)))


@given(st.lists(st.floats(0, 2), min_size=2, max_size=40), st.data())
def test_no_dropped_layer_is_more_important_than_a_kept_one(
    importance: list[float], data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, len(importance) - 1))
    kept = prune.choose_layers(importance, n, "importance")
    dropped = set(range(len(importance))) - set(kept)
    assert max(importance[s] for s in dropped) <= min(importance[s] for s in kept)


def test_even_layers_hold_both_ends() -> None:
    assert prune.choose_layers([0.0] * 30, 4, "even") == (0, 10, 19, 29)


def test_more_layers_than_the_teacher_has_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"student\.layers must be at most 3.*got 4"):
        prune.choose_layers([1.0, 1.0, 1.0], 4, "importance")


def test_more_neurons_than_the_teacher_has_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"student\.intermediate must be at most 8.*got 9"):
        prune.choose_neurons(torch.ones(8), 9)


def test_another_architecture_is_refused_with_what_works() -> None:
    other: Any = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16))
    with pytest.raises(StudentError, match=r"Llama-like.*GPT2LMHeadModel is not one"):
        prune.measure(other, [document([1, 2, 3])], neurons=False)


def test_a_block_without_gate_is_refused_for_neurons(
    model: Any, calibration: list[Document]
) -> None:
    model.model.layers[1].mlp = torch.nn.Identity()
    with pytest.raises(StudentError, match="Identity is not one"):
        prune.measure(model, calibration, neurons=True)
