"""Which shape to prune to: the same parameters as few whole layers, many narrow ones, or fewer heads.

    python benchmarks/shapes.py [--quick] [--layers 10] [--prompts N] [--seeds N]

Every student is pruned out of the teacher to about the parameters of `--layers` whole layers, and trained on the
quickstart's answers, in the same order, for the same steps:

- `depth`: whole layers;
- `width`: more layers, narrower feed-forward blocks;
- `heads`: layers without their least active group of heads (keys, values and the queries that share them),
  as many as that pays for. Limbeck does not prune heads; this is the measurement of whether it should.

Held-out KL with its interval over documents, and paired differences from `depth`. Prints progress, a table, and one
JSON object as the last line.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from vocabulary import Arm, answers, load_quickstart, trained

from limbeck.backends import load
from limbeck.distill import prune
from limbeck.distill.evaluate import measure_fidelity
from limbeck.distill.recipe import Recipe, StudentRecipe
from limbeck.distill.student import Student, build_student, freeze_embeddings
from limbeck.distill.targets import Document, Taught
from limbeck.model import LocalModel
from limbeck.progress import Silent

_CALIBRATION = 32
_WIDTHS = (0.75, 0.5)
"""Share of the feed-forward width that the narrow students keep."""
_MULTIPLE = 32
DEPTH, HEADS = "depth", "heads"

Say = Callable[[str], None]


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few prompts; figures are rough")
    parser.add_argument("--layers", type=int, default=10, help="whole layers of the budget")
    parser.add_argument("--prompts", type=int, help="prompts answered; 256, or 48 with --quick")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each student")
    options = parser.parse_args()
    recipe = load_quickstart(options.prompts or (48 if options.quick else 256))
    teacher = load(recipe.teacher.model, dtype=recipe.teacher.dtype)
    console, started = Console(width=110), time.perf_counter()

    def say(line: str) -> None:
        console.print(f"{time.perf_counter() - started:6.0f} s  {line}", highlight=False)

    taught = answers(teacher, recipe)
    found = measure(teacher, taught, recipe, options.layers, options.seeds, say)
    found = {"quick": options.quick} | found
    console.print(table(found))
    print(json.dumps(found))


def measure(
    teacher: LocalModel,
    taught: Sequence[Taught],
    recipe: Recipe,
    layers: int,
    seeds: int,
    say: Say,
) -> dict[str, Any]:
    """Train and measure a student of every shape, and return the figures."""
    training = [t for t in taught if not t.document.heldout]
    heldout = [t.document for t in taught if t.document.heldout]
    calibration = sorted((t.document for t in training), key=lambda d: d.key)[:_CALIBRATION]
    starts = _starts(teacher, calibration, layers)
    runs: list[dict[str, Any]] = []
    for seed in range(seeds):
        students = {
            name: trained(start, Arm(None, start.record.layers), training, recipe, seed)[0]
            for name, start in starts.items()
        }
        runs.append(_figures(teacher, students, heldout, recipe))
        for name, figures in runs[-1].items():
            say(f"seed {seed}  {name:12} KL {figures['kl'][0]:.4f}")
    return {
        "shapes": {
            name: {
                "layers": s.record.layers,
                "intermediate": s.record.intermediate,
                "heads": s.model.config.num_attention_heads,
                "parameters": sum(p.numel() for p in s.model.parameters()),
            }
            for name, s in starts.items()
        },
        "training_positions": sum(len(t.targets) for t in training),
        "positions": sum(d.positions for d in heldout),
        "runs": runs,
    }


def _starts(
    teacher: LocalModel, calibration: Sequence[Document], layers: int
) -> dict[str, Student]:
    """Build a student of every shape within the budget."""
    config, most = teacher.model.config, teacher.model.config.num_hidden_layers
    block = teacher.model.model.layers[0]
    attention = sum(p.numel() for p in block.self_attn.parameters())
    forward = sum(p.numel() for p in block.mlp.parameters())
    budget = layers * (attention + forward)

    def start(count: int, width: int | None) -> Student:
        recipe = StudentRecipe(layers=min(most, count), intermediate=width, freeze_embeddings=True)
        return build_student(recipe, teacher, calibration, seed=0)

    starts = {DEPTH: start(layers, None)}
    for share in _WIDTHS:
        count = round(budget / (attention + share * forward))
        room = (budget / count - attention) / forward * config.intermediate_size
        width = min(config.intermediate_size, int(room) // _MULTIPLE * _MULTIPLE)
        starts[f"width {width}"] = start(count, width)
    groups = config.num_key_value_heads
    fewer = start(round(budget / (attention * (groups - 1) / groups + forward)), None)
    drop_groups(fewer.model, group_activity(fewer.model, calibration), 1)
    freeze_embeddings(fewer.model)
    return starts | {HEADS: fewer}


@torch.no_grad()
def group_activity(model: Any, calibration: Sequence[Document]) -> list[Tensor]:
    """Return, for each layer, what each group of heads adds to the hidden state, as for neurons in `prune`."""
    sums: list[Tensor] = [torch.zeros(())] * len(model.model.layers)
    groups = model.config.num_key_value_heads

    def hook(s: int) -> Any:
        def look(projection: nn.Linear, args: Any) -> None:
            size_C = args[0][0].abs().double().sum(0) * projection.weight.double().norm(dim=0)
            sums[s] = sums[s] + size_C.reshape(groups, -1).sum(1)

        return look

    handles = [
        layer.self_attn.o_proj.register_forward_pre_hook(hook(s))
        for s, layer in enumerate(model.model.layers)
    ]
    for document in calibration:
        model(torch.from_numpy(document.tokens_T).long()[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return sums


@torch.no_grad()
def drop_groups(model: Any, activity_SG: Sequence[Tensor], count: int) -> None:
    """Take the least active groups of heads out of every layer, in place."""
    config = model.config
    groups, width = config.num_key_value_heads, config.head_dim
    share = config.num_attention_heads // groups
    for layer, activity_G in zip(prune.decoder_layers(model), activity_SG, strict=True):
        block: Any = layer.self_attn
        kept_G = activity_G.argsort(descending=True)[: groups - count].sort().values
        keys_C = (kept_G[:, None] * width + torch.arange(width)).flatten()
        queries_C = (kept_G[:, None] * width * share + torch.arange(width * share)).flatten()
        for name, rows in (("q_proj", queries_C), ("k_proj", keys_C), ("v_proj", keys_C)):
            linear = getattr(block, name)
            linear.weight = nn.Parameter(linear.weight[rows].clone())
            linear.out_features = len(rows)
        block.o_proj.weight = nn.Parameter(block.o_proj.weight[:, queries_C].clone())
        block.o_proj.in_features = len(queries_C)
    config.num_key_value_heads = groups - count
    config.num_attention_heads = (groups - count) * share


def _figures(
    teacher: LocalModel,
    students: dict[str, Student],
    heldout: Sequence[Document],
    recipe: Recipe,
) -> dict[str, Any]:
    rows = teacher.model.get_input_embeddings().weight.shape[0]
    figures: dict[str, Any] = {}
    for name, student in students.items():
        heard = measure_fidelity(
            teacher.model,
            {name: student.model, DEPTH: students[DEPTH].model},
            heldout,
            np.ones(rows, np.int64),
            precision="bf16" if recipe.teacher.dtype == "bfloat16" else "no",
            batch_tokens=recipe.capture.batch_tokens,
            progress=Silent(),
        )
        arm = heard.arms[name]
        figures[name] = {"kl": [arm.kl.value, *(arm.kl.interval or ())], "top1": arm.top1.value}
        if heard.differences:
            difference = heard.differences[0].kl
            figures[name]["minus_depth"] = [difference.value, *(difference.interval or ())]
    return figures


def table(found: dict[str, Any]) -> Table:
    """Return the figures for a terminal, one line a run and shape."""
    shown = Table(
        title=f"{found['training_positions']:,} training positions"
        + (" (quick: rough)" if found["quick"] else ""),
        caption="[...]: 95% over documents, paired for the difference",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("", no_wrap=True)
    for column in ("layers", "width", "heads", "params", "KL", "top-1", "minus depth"):
        shown.add_column(column, justify="right", no_wrap=True)
    for run in found["runs"]:
        for name, shape in found["shapes"].items():
            difference = run[name].get("minus_depth")
            shown.add_row(
                name,
                str(shape["layers"]),
                str(shape["intermediate"]),
                str(shape["heads"]),
                f"{shape['parameters'] / 1e6:.1f}M",
                f"{run[name]['kl'][0]:.3f}",
                f"{run[name]['top1']:.1%}",
                "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference) if difference else "",
            )
    return shown


if __name__ == "__main__":
    main()
