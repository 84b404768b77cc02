"""Low-rank adapters on a frozen student: added, saved beside it, merged into it. The work is peft's."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.artefact import read_json, write_json, write_text
from limbeck.distill.recipe import LoraRecipe
from limbeck.errors import RecipeError, StudentError
from limbeck.extras import need
from limbeck.pretrained import written_whole

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, slots=True)
class Adapters:
    """Adapters inside a model; owns the wrapper that knows how to save and merge them."""

    wrapper: Any
    """A `peft.PeftModel`."""
    model: Any
    """The `transformers` model itself: only its adapters require a gradient."""


def check_adapters(lora: LoraRecipe, model: Any) -> None:
    """Refuse adapters that cannot be added, before anything costly is done.

    Raises:
        MissingDependencyError: peft is not installed.
        RecipeError: A target names no linear layer of the model.
    """
    need("student.lora", "lora", "peft")
    layers = _linear_layers(model)
    names = {name.rpartition(".")[2] for name in layers}
    for target in lora.targets:
        if target != ALL_LINEAR and not any(_matches(name, target) for name in layers):
            raise RecipeError(
                f"student.lora.targets names {target}, which is no linear layer of the student; "
                f"it has {', '.join(sorted(names))}"
            )


def add_adapters(model: Any, lora: LoraRecipe, *, seed: int) -> Adapters:
    """Put adapters into a model, in place, and freeze everything else; its logits do not change yet.

    LoRA (Hu et al., arXiv 2106.09685) adds alpha / rank * B A to a weight, with B = 0 at first; DoRA (Liu
    et al., arXiv 2402.09353) learns the length of each row of the sum apart from its direction.

    Args:
        model: A causal `transformers` model.
        lora: What `check_adapters` has passed.
        seed: Of the first factor's random values; the global random state stays as it is.
    """
    from peft import LoraConfig, get_peft_model

    check_adapters(lora, model)
    targets = sorted(
        name
        for name in _linear_layers(model)
        if any(target == ALL_LINEAR or _matches(name, target) for target in lora.targets)
    )
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  # declared int, used as a number
        target_modules=targets,
        use_dora=lora.dora,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), _without_notices():
        torch.manual_seed(seed)
        return Adapters(get_peft_model(model, config), model)


def count_trainable(model: Any, lora: LoraRecipe) -> int:
    """Return how many parameters adapters would train; the model stays as it is."""
    wanted = [p.requires_grad for p in model.parameters()]
    adapters = add_adapters(model, lora, seed=0)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    adapters.wrapper.unload()
    for parameter, flag in zip(model.parameters(), wanted, strict=True):
        parameter.requires_grad_(flag)
    return count


def merge_adapters(adapters: Adapters) -> Any:
    """Add the adapters to the weights that they adapt, take them out, and return the plain model.

    Raises:
        StudentError: A merged weight is not finite.
    """
    try:
        return adapters.wrapper.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise StudentError(f"the trained adapters cannot be merged: {error}") from error


def save_adapters(adapters: Adapters, folder: Path, *, base: str) -> None:
    """Write adapters as a folder that `peft.PeftModel.from_pretrained` reads, whole or not at all.

    Args:
        adapters: Not merged yet.
        folder: Where to write.
        base: Which folder of the run they belong to, for its README.
    """
    with written_whole(folder, replace=True) as partial, _without_notices():
        adapters.wrapper.save_pretrained(partial, save_embedding_layers=False)
        config = read_json(partial / "adapter_config.json")
        # peft keeps them in a set: without an order of their own, equal runs would differ in this file.
        config["target_modules"] = sorted(config["target_modules"])
        config["base_model_name_or_path"] = None  # a path of the machine that trained them
        write_json(partial / "adapter_config.json", config)
        write_text(partial / "README.md", _README.format(base=base))


_README = """Adapters of this run's student, before they were merged into it. They belong to `{base}`:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("RUN/{base}")
model = PeftModel.from_pretrained(base, "RUN/adapter")
```

`RUN/student` is the same model with the adapters merged; it needs no peft.
"""


def _linear_layers(model: Any) -> list[str]:
    """Return the dotted names of the linear layers that may have adapters: all but the head."""
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    ]


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


@contextmanager
def _without_notices() -> Generator[None]:
    """Keep back what peft and transformers say to each other of names that will change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
