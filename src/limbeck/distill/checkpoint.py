"""A training state on disk, whole or not there: weights, optimiser and step, however many processes made it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from limbeck.artefact import read_json, sha256_file, write_json
from limbeck.distill.spread import like, whole
from limbeck.errors import TrainingError

_TENSORS = "state.safetensors"
_MANIFEST = "checkpoint.json"
_KEEP = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a checkpoint lies and after which step it was taken."""

    folder: Path
    step: int


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint below `folder`, or None."""
    found = [
        Checkpoint(path.parent, int(read_json(path)["step"]))
        for path in folder.glob(f"checkpoint-*/{_MANIFEST}")
    ]
    return max(found, key=lambda c: c.step, default=None)


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    write: bool = True,
) -> Checkpoint:
    """Write a checkpoint in a folder of its own that gets its name last, and keep the newest two.

    Shards are gathered, so that any number of processes can go on from it; all of them must call, and one
    of them writes.

    Raises:
        TrainingError: The disk is full or cannot be written.
    """
    final = folder / f"checkpoint-{step:08d}"
    partial = folder / f".checkpoint-{step:08d}.{os.getpid()}.partial"
    tensors = _tensors(model, optimizer, keep=write)
    if not write:
        return Checkpoint(final, step)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_file(tensors, partial / _TENSORS)
        sha = sha256_file(partial / _TENSORS)
        write_json(partial / _MANIFEST, {"step": step, "sha256": sha})
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"checkpoint {final} cannot be written: {error}; the one before is kept, "
            "make room and go on with --resume"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _forget_old(folder)
    return Checkpoint(final, step)


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights and optimiser back, to the bit; each process takes its shards.

    Raises:
        TrainingError: The checkpoint is damaged or belongs to another model.
    """
    path = checkpoint.folder / _TENSORS
    if sha256_file(path) != read_json(checkpoint.folder / _MANIFEST)["sha256"]:
        raise TrainingError(
            f"checkpoint {checkpoint.folder} is damaged; remove it to use the one before"
        )
    try:
        with safe_open(path, framework="pt") as state:
            _put_back(state, checkpoint, model, optimizer)
    except SafetensorError as error:
        raise TrainingError(f"checkpoint {checkpoint.folder} cannot be read: {error}") from None


@torch.no_grad()
def _put_back(
    state: Any, checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Read one tensor after another, so that the whole state is never held beside the model's own."""
    parameters = dict(model.named_parameters())
    kinds: dict[str, list[str]] = {name: [] for name in parameters}
    theirs: set[str] = set()
    for key in state.keys():  # noqa: SIM118 - a file of tensors, not a mapping
        if key.startswith("weight/"):
            theirs.add(key.removeprefix("weight/"))
        elif key.startswith("optimizer/"):
            _, kind, name = key.split("/", 2)
            kinds.setdefault(name, []).append(kind)
    if theirs != parameters.keys() or kinds.keys() != parameters.keys():
        raise TrainingError(f"checkpoint {checkpoint.folder} belongs to another model")
    for name, parameter in parameters.items():
        parameter.copy_(like(state.get_tensor(f"weight/{name}"), parameter))
        for kind in kinds[name]:
            value = state.get_tensor(f"optimizer/{kind}/{name}")
            if value.shape == parameter.shape:
                # A copy: a shard that were a view would keep the whole tensor in memory.
                shard = torch.empty_like(parameter, dtype=value.dtype)
                optimizer.state[parameter][kind] = shard.copy_(like(value, parameter))
            else:
                optimizer.state[parameter][kind] = value.to(parameter.device)


def forget(folder: Path) -> None:
    """Remove every checkpoint below `folder`, once what they led to is saved."""
    for path in [*folder.glob("checkpoint-*"), *folder.glob(".checkpoint-*.partial")]:
        shutil.rmtree(path)


def _tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, keep: bool
) -> dict[str, Tensor]:
    """Gather one tensor after another, and keep them in main memory where they are wanted."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        found = {f"weight/{name}": parameter.detach()}
        for kind, value in optimizer.state.get(parameter, {}).items():
            found[f"optimizer/{kind}/{name}"] = value
        for key, value in found.items():
            full = whole(value)
            if keep:
                tensors[key] = full.contiguous().cpu()
    return tensors


def _forget_old(folder: Path) -> None:
    complete = sorted(path.parent for path in folder.glob(f"checkpoint-*/{_MANIFEST}"))
    for old in complete[:-_KEEP]:
        shutil.rmtree(old)
    for partial in folder.glob(".checkpoint-*.partial"):
        shutil.rmtree(partial)
