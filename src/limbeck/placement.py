"""Where models compute: this process's accelerator where there is one, else the CPU.

`accelerate` finds the accelerator, and in a launch of several processes gives each its own. Nothing here was
run on one: tests prove the decisions, and run what they lead to on the CPU.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from limbeck.errors import TeacherError

if TYPE_CHECKING:
    import torch

# Imported for its values alone: torch and accelerate load inside the functions that need them.

CPU_VARIABLE = "ACCELERATE_USE_CPU"
"""Environment variable that `accelerate launch --cpu` sets; it keeps everything on the CPU."""
_PATIENCE = timedelta(hours=2)
"""How long processes that train together wait for each other: one may be writing a large checkpoint."""
_ROOM = 0.8
"""Share of a device's free memory that weights may take; the rest is for activations."""


def computes_on_cpu(kind: str | None, environment: Mapping[str, str]) -> bool:
    """Tell whether to leave an accelerator alone.

    Args:
        kind: Its type, such as `cuda`; None where there is none.
        environment: Where `CPU_VARIABLE` may be set.
    """
    asked = environment.get(CPU_VARIABLE, "").lower() in {"1", "true", "yes", "on"}
    return (
        asked or kind is None or kind == "mps"
    )  # Apple's lacks float64, which drawing tokens needs


def device(worker: int = 0) -> "torch.device":
    """Return the device that this process computes on.

    Args:
        worker: Number of this process among those that share a machine without a launch; they take its
            accelerators in turn.
    """
    import torch
    from accelerate import PartialState

    found = torch.accelerator.current_accelerator(check_available=True)
    on_cpu = computes_on_cpu(found.type if found else None, os.environ)
    mine = PartialState(cpu=on_cpu, timeout=_PATIENCE).device or torch.device("cpu")
    if worker and mine.type != "cpu":
        return torch.device(mine.type, worker % torch.accelerator.device_count())
    return mine


def place(model: Any, onto: "torch.device") -> None:
    """Move a model to a device in place; one too large for it is spread over all visible ones.

    Spread, embeddings and head lie on the first device and the layers in order on all of them; `accelerate`
    moves the hidden states along. One device works at a time.

    Raises:
        TeacherError: It does not fit on all of them together.
    """
    if onto.type in {"cpu", "meta"}:
        model.to(onto)
        return
    import torch

    first = onto.index or 0
    count = torch.accelerator.device_count()
    order = [(first + i) % count for i in range(count)]
    free = [torch.accelerator.get_memory_info(i)[0] for i in order]
    chosen = choose_devices(weight_bytes(model), free)
    if chosen == 1:
        model.to(onto)
    else:
        spread(model, [torch.device(onto.type, i) for i in order[:chosen]])


def choose_devices(need: int, free: Sequence[int]) -> int:
    """Return how many devices, from the first, hold a model.

    Args:
        need: Bytes of its weights.
        free: Free bytes of each device.

    Raises:
        TeacherError: All of them are too few.
    """
    room = 0.0
    for count, each in enumerate(free, start=1):
        room += _ROOM * each
        if need <= room:
            return count
    raise TeacherError(
        f"the model's weights take {need / 1e9:.1f} GB, and the {len(free)} accelerators that this process "
        f"sees have room for {room / 1e9:.1f} GB; give it more of them, or set {CPU_VARIABLE}=true"
    )


def weight_bytes(model: Any) -> int:
    """Return the bytes of a model's parameters and buffers."""
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def spread(model: Any, devices: "Sequence[torch.device]") -> None:
    """Put a model's layers on several devices in order, everything else on the first, in place."""
    import torch
    from accelerate import dispatch_model

    names = device_map(model, len(devices))
    where: dict[str, str | int | torch.device] = {n: devices[k] for n, k in names.items()}
    dispatch_model(model, device_map=where, main_device=devices[0], force_hooks=True)


def take_back(model: Any) -> None:
    """Bring a spread model back to the CPU as an ordinary one; any other stays where it is."""
    if getattr(model, "hf_device_map", None) is None:
        return
    from accelerate.hooks import remove_hook_from_submodules

    remove_hook_from_submodules(model)
    del model.hf_device_map
    model.to("cpu")


def device_map(model: Any, devices: int) -> dict[str, int]:
    """Return the number of the device for each part of a model, by module name.

    Layers, the modules that the architecture calls indivisible, are dealt out in order and evenly.

    Raises:
        TeacherError: The architecture names none.
    """
    kinds: set[str] = set(getattr(model, "_no_split_modules", None) or [])
    layers = [name for name, part in model.named_modules() if type(part).__name__ in kinds]
    if not layers:
        raise TeacherError(
            f"{type(model).__name__} names no layers that could lie on several devices; it needs one device"
        )
    where = {name: number * devices // len(layers) for number, name in enumerate(layers)}
    return dict.fromkeys(_beside(model, layers), 0) | where


def _beside(model: Any, layers: Sequence[str]) -> Iterator[str]:
    """Yield the topmost modules that hold no layer and lie in none."""
    inside = set(layers)
    above = {name.rsplit(".", n)[0] for name in layers for n in range(1, name.count(".") + 1)}
    names: list[str] = [name for name, _ in model.named_modules() if name]
    for name in names:
        if name not in above | inside and name.rpartition(".")[0] in above | {""}:
            yield name
