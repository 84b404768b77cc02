"""A training state on disk, whole or not there: weights, optimiser, random state and step."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from limbeck.artefact import read_json, sha256_file, write_json
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


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
    """Write a checkpoint in a folder of its own that gets its name last, and keep the newest two.

    Raises:
        TrainingError: The disk is full or cannot be written.
    """
    final = folder / f"checkpoint-{step:08d}"
    partial = folder / f".checkpoint-{step:08d}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_file(_tensors(model, optimizer), partial / _TENSORS)
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
    """Put weights, optimiser and random state back, to the bit.

    Raises:
        TrainingError: The checkpoint is damaged or belongs to another model.
    """
    path = checkpoint.folder / _TENSORS
    if sha256_file(path) != read_json(checkpoint.folder / _MANIFEST)["sha256"]:
        raise TrainingError(
            f"checkpoint {checkpoint.folder} is damaged; remove it to use the one before"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise TrainingError(f"checkpoint {checkpoint.folder} cannot be read: {error}") from None
    torch.set_rng_state(tensors.pop("random_state"))
    parameters = dict(model.named_parameters())
    theirs = {name.removeprefix("weight/") for name in tensors if name.startswith("weight/")}
    if theirs != parameters.keys():
        raise TrainingError(f"checkpoint {checkpoint.folder} belongs to another model")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight/{name}"])
            state = {
                key.split("/")[1]: tensor
                for key, tensor in tensors.items()
                if key.startswith("optimizer/") and key.split("/", 2)[2] == name
            }
            if state:
                optimizer.state[parameter] = state


def forget(folder: Path) -> None:
    """Remove every checkpoint below `folder`, once what they led to is saved."""
    for path in [*folder.glob("checkpoint-*"), *folder.glob(".checkpoint-*.partial")]:
        shutil.rmtree(path)


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {"random_state": torch.get_rng_state()}
    for name, parameter in model.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value.contiguous()
    return tensors


def _forget_old(folder: Path) -> None:
    complete = sorted(path.parent for path in folder.glob(f"checkpoint-*/{_MANIFEST}"))
    for old in complete[:-_KEEP]:
        shutil.rmtree(old)
    for partial in folder.glob(".checkpoint-*.partial"):
        shutil.rmtree(partial)
