from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, MistralConfig, MistralForCausalLM

from limbeck.distill.beginning import Beginning, can_share
from limbeck.distill.cache import growing_cache
from limbeck.distill.capture import hidden_states
from limbeck.distill.forward import split
from limbeck.model import LocalModel


def test_what_follows_a_beginning_is_read_as_if_it_followed_each_row(
    tiny_teacher: LocalModel,
) -> None:
    rng = np.random.default_rng(3)
    start_P = rng.integers(3, 400, 17).astype(np.int32)
    rows = [rng.integers(3, 400, n).astype(np.int32) for n in (5, 11, 8)]
    beginning = Beginning(tiny_teacher.model, start_P)
    halves = split(tiny_teacher.model)
    with torch.inference_mode():
        lent = list(hidden_states(halves, rows, beginning))
        again = list(hidden_states(halves, rows, beginning))
        whole = list(hidden_states(halves, [np.concatenate([start_P, row]) for row in rows]))
    for one, two, three in zip(lent, again, whole, strict=True):
        torch.testing.assert_close(one, three[len(start_P) :], rtol=1e-4, atol=1e-5)
        assert torch.equal(one, two)


def test_it_fills_caches_of_both_kinds(tiny_teacher: LocalModel) -> None:
    beginning = Beginning(tiny_teacher.model, np.arange(3, 12, dtype=np.int32))
    for cache in (
        growing_cache(tiny_teacher.model.config),
        DynamicCache(config=tiny_teacher.model.config),
    ):
        filled: Any = beginning.fill(cache, 4)
        assert filled.get_seq_length() == len(beginning) == 9
        assert filled.layers[0].keys.shape[0] == 4


def test_a_model_with_a_window_does_not_share(tiny_teacher: LocalModel) -> None:
    assert can_share(tiny_teacher.model)
    config = MistralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=8,
    )
    assert not can_share(MistralForCausalLM(config))
