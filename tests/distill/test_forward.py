from typing import Any

import pytest
import torch
import transformers

from limbeck.distill.forward import check_packs, split
from limbeck.errors import StudentError

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def _model(config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = transformers.AutoModelForCausalLM.from_config(config)
    return model.eval()


def test_a_llama_splits_and_packs() -> None:
    model = _model(transformers.LlamaConfig(**SIZES))
    check_packs(split(model), model.config, row_length=4096)


def test_a_model_with_dropout_splits_while_it_trains_and_goes_on_training() -> None:
    model = _model(transformers.LlamaConfig(**SIZES, attention_dropout=0.5, initializer_range=0.5))
    split(model.train())
    assert all(part.training for part in model.modules())


def test_attention_in_a_window_is_refused_for_rows_longer_than_the_window() -> None:
    model = _model(transformers.MistralConfig(**SIZES, sliding_window=16))
    check_packs(split(model), model.config, row_length=16)
    with pytest.raises(StudentError, match=r"window of 16 tokens.*at most 16, got 32"):
        check_packs(split(model), model.config, row_length=32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_that_takes_no_mask_of_four_axes_is_refused(dtype: torch.dtype) -> None:
    model = _model(transformers.LlamaConfig(**SIZES, initializer_range=0.1)).to(dtype)
    check_packs(split(model), model.config, row_length=32)
    model.set_attn_implementation("eager")
    with pytest.raises(StudentError, match="reads packed documents differently"):
        check_packs(split(model), model.config, row_length=32)


def test_a_head_that_is_not_the_whole_story_is_refused() -> None:
    class Capped(transformers.LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            reply: Any = super().forward(*args, **kwargs)
            reply.logits = 0.01 * torch.tanh(reply.logits)
            return reply

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Capped(transformers.LlamaConfig(**SIZES, initializer_range=0.5)).eval()
    with pytest.raises(StudentError, match="changes its logits after the head"):
        split(model)
