from typing import Any

import torch

from limbeck.distill.cache import growing_cache
from limbeck.model import LocalModel


def test_a_growing_cache_changes_nothing_that_a_model_says(tiny_teacher: LocalModel) -> None:
    generator = torch.Generator().manual_seed(3)
    tokens_BT = torch.randint(3, 400, (4, 150), generator=generator)
    model = tiny_teacher.model
    with torch.inference_mode():
        whole_BTV = model(tokens_BT, use_cache=False).logits
        cache = growing_cache(model.config)
        model(tokens_BT[:, :5], past_key_values=cache, use_cache=True)
        rows = torch.arange(4)
        for t in range(5, 150):  # past two enlargements, and with rows dropped on the way
            if t == 90:
                rows = torch.tensor([3, 1])
                cache.batch_select_indices(rows)
            reply = model(tokens_BT[rows, t : t + 1], past_key_values=cache, use_cache=True)
            torch.testing.assert_close(reply.logits[:, 0], whole_BTV[rows, t], atol=1e-4, rtol=1e-4)
    assert cache.get_seq_length() == 150


def test_appending_does_not_move_what_is_there(tiny_teacher: LocalModel) -> None:
    model = tiny_teacher.model
    cache: Any = growing_cache(model.config)
    with torch.inference_mode():
        model(torch.tensor([[5, 6, 7]]), past_key_values=cache, use_cache=True)
        before = cache.layers[0].keys
        model(torch.tensor([[8]]), past_key_values=cache, use_cache=True)
        after = cache.layers[0].keys
    assert before is not None
    assert after is not None
    assert before.data_ptr() == after.data_ptr()
