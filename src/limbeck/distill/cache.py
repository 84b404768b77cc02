"""A key-value cache with room to grow, so that writing a token does not copy what was written before."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

_ROOM = 64
"""Positions added whenever a layer is full."""


class GrowingLayer(DynamicLayer):
    """One layer's keys and values in buffers larger than what they hold; `keys` and `values` are views.

    `DynamicLayer` concatenates, which copies the whole cache for every token: a third of the time of a batch
    of 128 that writes 128 tokens on a CPU.
    """

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, heads, new, width] and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        had = self.get_seq_length()
        length = had + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < length:
            self._buffers = (
                self._grown(self.keys, key_states, had, length + _ROOM),
                self._grown(self.values, value_states, had, length + _ROOM),
            )
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, had:length] = new
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only some rows."""
        super().batch_select_indices(indices)
        self._buffers = None

    @staticmethod
    def _grown(held: Tensor | None, new: Tensor, had: int, room: int) -> Tensor:
        buffer = new.new_empty((*new.shape[:-2], room, new.shape[-1]))
        if had and held is not None:
            buffer[:, :, :had] = held
        return buffer


def growing_cache(config: Any) -> DynamicCache:
    """Return an empty cache for a model; layers with a window or a state of their own stay as they are."""
    cache = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = GrowingLayer()
    return cache
