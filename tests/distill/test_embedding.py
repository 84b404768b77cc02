"""A model with fewer tokens says of them what the whole model says."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from limbeck.distill.embedding import keep_tokens, named_tokens
from limbeck.distill.vocabulary import Vocabulary
from limbeck.errors import StudentError

KEPT = [0, 1, 2, 5, 6, 7, 8, 50, 90]


def model(*, tied: bool) -> Any:
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        bos_token_id=7,
        eos_token_id=[8, 90],
        pad_token_id=8,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_kept_tokens_have_the_logits_they_had(tied: bool, tmp_path: Path) -> None:
    whole = model(tied=tied)
    small = copy.deepcopy(whole)
    keep_tokens(small, Vocabulary(np.array(KEPT), 100))
    tokens = torch.tensor([[5, 50, 6, 1]])
    ours = small(torch.tensor([[KEPT.index(t) for t in tokens[0].tolist()]])).logits
    torch.testing.assert_close(ours, whole(tokens).logits[..., KEPT])
    assert (small.lm_head.weight is small.model.embed_tokens.weight) == tied
    small.save_pretrained(tmp_path)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    again = loaded(torch.tensor([[3, 7, 4, 1]])).logits
    torch.testing.assert_close(again, ours)
    assert loaded.config.vocab_size == len(KEPT)


def test_ids_in_configuration_and_generation_settings_follow() -> None:
    small = model(tied=True)
    assert named_tokens(small) == {7, 8, 90}
    keep_tokens(small, Vocabulary(np.array(KEPT), 100))
    for settings in (small.config, small.generation_config):
        assert settings.bos_token_id == KEPT.index(7)
        assert settings.eos_token_id == [KEPT.index(8), KEPT.index(90)]
        assert settings.pad_token_id == KEPT.index(8)


def test_generation_settings_that_cannot_be_renumbered_are_refused() -> None:
    whole = model(tied=True)
    whole.generation_config.suppress_tokens = [4, 5]
    with pytest.raises(StudentError, match="suppress_tokens"):
        named_tokens(whole)


def test_kept_rows_learn_a_padding_token_too() -> None:
    small = model(tied=False)
    keep_tokens(small, Vocabulary(np.array(KEPT), 100))
    pad = KEPT.index(8)
    small(torch.tensor([[pad, 1]])).logits.sum().backward()
    assert small.model.embed_tokens.weight.grad[pad].abs().sum() > 0
