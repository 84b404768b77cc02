"""A training spread over the processes of a launch: a copy of the weights in each, or a shard of them.

Both average gradients over processes, so a loss that is summed over them is multiplied by their number.

Cut into shards (FSDP2), each decoder layer is gathered when it is used and let go afterwards. What lies outside the
layers (embeddings, last norm, head) belongs to the root, which is gathered for the whole of forward and
backward: the fused loss reads the head's weight as it is, and a tied head is the embeddings' tensor.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

SHARDS_VARIABLE = "ACCELERATE_USE_FSDP"
"""Environment variable that `accelerate launch --use_fsdp` sets."""


def wants_shards(environment: Mapping[str, str]) -> bool:
    """Tell whether the launch asks for shards instead of copies."""
    return environment.get(SHARDS_VARIABLE, "").lower() == "true"


@dataclass(frozen=True, slots=True)
class Team:
    """The processes that train together."""

    device: torch.device
    """Where this process computes."""
    rank: int = 0
    size: int = 1
    shards: bool = False
    """Whether weights, gradients and optimiser are cut into shards; else each process has a copy."""

    @classmethod
    def here(cls, device: torch.device) -> "Team":
        """Return the team that `torch.distributed` knows of, or one of this process alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls(device)
        return cls(
            device, distributed.get_rank(), distributed.get_world_size(), wants_shards(os.environ)
        )

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def wrap(self, objective: nn.Module, layers: Iterable[nn.Module]) -> nn.Module:
        """Return a module that trains together with the others'; `objective` changes in place.

        Args:
            objective: Gives a scalar; the same in all processes.
            layers: What is gathered one at a time where there are shards.
        """
        objective = objective.to("cpu" if self.shards else self.device)
        if self.shards:
            mesh = init_device_mesh(self.device.type, (self.size,))
            for layer in layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(objective, mesh=mesh)
            return objective
        if self.size == 1:
            return objective
        ids = None if self.device.type == "cpu" else [self.device]
        return DistributedDataParallel(objective, device_ids=ids)

    def keep_gradients(self, wrapped: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Keep the gradients of the backward passes within to this process, to be averaged with the next.

        Shards are averaged every time: to wait would hold the gradients of all weights in every process.
        """
        if isinstance(wrapped, DistributedDataParallel):
            return cast("contextlib.AbstractContextManager[None]", wrapped.no_sync())
        return contextlib.nullcontext()

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, a small one that pickles, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def mean(self, value: Tensor) -> float:
        """Return the mean of a scalar over the processes."""
        total = value.detach().clone()
        if self.size > 1:
            distributed.all_reduce(total)
        return float(total) / self.size


def clip(parameters: Iterable[nn.Parameter], largest: float) -> float:
    """Scale gradients down to a norm of at most `largest` over all shards, and return the norm before."""
    return float(whole(torch.nn.utils.clip_grad_norm_(list(parameters), largest)))


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor gathered from its shards; all processes must ask. Others come back as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(full: Tensor, parameter: Tensor) -> Tensor:
    """Return a whole tensor as the shard and on the device that `parameter` is; nothing is sent."""
    if not isinstance(parameter, DTensor):
        return full.to(parameter.device)
    mesh: Any = parameter.device_mesh
    here = full.to(parameter.to_local().device)
    return distribute_tensor(here, mesh, parameter.placements, src_data_rank=None)


@torch.no_grad()
def gather(model: nn.Module, into: nn.Module) -> None:
    """Copy a trained model's weights, gathered from their shards, into an ordinary model that it was copied from."""
    if model is into:
        return
    for trained, parameter in zip(model.parameters(), into.parameters(), strict=True):
        parameter.copy_(whole(trained.detach()))
