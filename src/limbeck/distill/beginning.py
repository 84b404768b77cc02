"""Tokens that all of a teacher's documents begin with, read once."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from limbeck.distill.targets import Ids


class Beginning:
    """A model's keys and values over some tokens; owns them, and lends them to every batch."""

    def __init__(self, model: Any, tokens_P: Ids) -> None:
        """Read the tokens.

        Args:
            model: A causal `transformers` model, for which `can_share` is true.
            tokens_P: At least one token.
        """
        self.tokens_P = tokens_P
        self._config = model.config
        cache: Any = DynamicCache(config=model.config)
        read_BT = torch.from_numpy(np.asarray(tokens_P)).long()[None].to(model.device)
        with torch.inference_mode():
            model.base_model(read_BT, past_key_values=cache, use_cache=True)
        self._layers: list[tuple[Tensor, Tensor]] = [
            (layer.keys, layer.values) for layer in cache.layers
        ]

    def __len__(self) -> int:
        """Return P, the number of tokens."""
        return len(self.tokens_P)

    def fill(self, cache: DynamicCache, rows: int) -> DynamicCache:
        """Put the beginning into an empty cache, for so many rows, and return the cache."""
        for index, (keys, values) in enumerate(self._layers):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), index)
        return cache

    def cache(self, rows: int) -> DynamicCache:
        """Return a new cache that holds the beginning for so many rows."""
        return self.fill(DynamicCache(config=self._config), rows)


def can_share(model: Any) -> bool:
    """Tell whether each layer of a model keeps all keys and values, so that a beginning can be lent.

    Layers with a window or a state of their own do not.
    """
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
