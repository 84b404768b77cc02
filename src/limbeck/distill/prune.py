"""Which layers and neurons of a Llama-like model matter on a text, and a copy that has those alone."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from limbeck.distill.targets import Document
from limbeck.errors import RecipeError, StudentError

LayerChoice = Literal["importance", "even"]

PER_LAYER_LISTS = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Lists in a configuration that hold one entry a layer."""
_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Measured:
    """What calibration text says of each layer of a model."""

    importance_S: tuple[float, ...]
    """Block influence, 1 - E[cos(h_in, h_out)] over loss positions: in [0, 2], 0 for a layer that does
    nothing."""
    activity_SF: tuple[Tensor, ...] | None
    """For each layer the activity of its F feed-forward neurons, at least 0; None where not asked for."""
    positions: int
    """Loss positions that were measured."""


def decoder_layers(model: Any) -> nn.ModuleList:
    """Return the layers of a Llama-like model.

    Raises:
        StudentError: The model is built otherwise.
    """
    layers = getattr(getattr(model, "model", None), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise StudentError(
            f"pruning knows Llama-like models (model.layers), and {type(model).__name__} is not one; "
            'use init = "folder" or init = "scratch"'
        )
    return layers


def measure(
    model: Any, calibration: Sequence[Document], *, neurons: bool, device: str | None = None
) -> Measured:
    """Measure each layer's block influence, and on request each neuron's activity, in one pass.

    Block influence is that of ShortGPT (Men et al., arXiv 2403.03853, eq. 1). A neuron's activity is
    E|act(gate(x)) * up(x)| times the norm of its column in down_proj: the mean size of what it adds to the
    hidden state. Activation-based width pruning is Minitron's (Muralidharan et al., arXiv 2407.14679,
    section 2.2); the weight's norm follows Wanda (Sun et al., arXiv 2306.11695). Only loss positions
    count, each alike.

    Args:
        model: A Llama-like model in evaluation mode.
        calibration: Documents as the student will meet them.
        neurons: Whether to measure feed-forward neurons too.
        device: Where the model lies; None asks the model.

    Raises:
        StudentError: The model is built otherwise, or the documents hold no loss position.
    """
    layers = decoder_layers(model)
    cosine_S = torch.zeros(len(layers), dtype=torch.float64)
    size_SF: list[Tensor] = [torch.zeros(0)] * len(layers)
    positions = 0
    for document in calibration:
        mask_T = torch.from_numpy(document.loss_T)
        count = int(mask_T.sum())
        if count == 0:
            continue
        positions += count
        for s, cosine, size_F in _observe(model, layers, document, mask_T, neurons, device):
            cosine_S[s] += cosine
            if size_F is not None:
                size_SF[s] = size_F + (size_SF[s] if len(size_SF[s]) else 0)
    if positions == 0:
        raise StudentError(
            f"pruning measures layers on text, and the {len(calibration)} calibration documents "
            "hold no loss position"
        )
    importance = tuple((1 - cosine_S / positions).clamp(0, 2).tolist())
    if not neurons:
        return Measured(importance, None, positions)
    activity = tuple(
        size_F
        / positions
        * feed_forward(layer)["down_proj"].weight.detach().double().norm(dim=0).cpu()
        for size_F, layer in zip(size_SF, layers, strict=True)
    )
    return Measured(importance, activity, positions)


@torch.no_grad()
def _observe(
    model: Any,
    layers: nn.ModuleList,
    document: Document,
    mask_T: Tensor,
    neurons: bool,
    device: str | None,
) -> Iterator[tuple[int, float, Tensor | None]]:
    """Yield (layer, sum of cosines, sums of neuron sizes) over a document's loss positions."""
    cosines = [0.0] * len(layers)
    sizes: list[Tensor | None] = [None] * len(layers)

    def layer_hook(s: int) -> Any:
        def hook(_layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before_TD = (args[0] if args else kwargs["hidden_states"])[0]
            after_TD = (output[0] if isinstance(output, tuple) else output)[0]
            mask = mask_T.to(before_TD.device)
            cosine_N = torch.cosine_similarity(
                before_TD[mask].double(), after_TD[mask].double(), dim=-1
            )
            cosines[s] = float(cosine_N.sum())

        return hook

    def neuron_hook(s: int) -> Any:
        def hook(_projection: nn.Module, args: Any) -> None:
            inner_TF = args[0][0]
            sizes[s] = inner_TF[mask_T.to(inner_TF.device)].abs().double().sum(0).cpu()

        return hook

    with ExitStack() as hooks:
        for s, layer in enumerate(layers):
            handle = layer.register_forward_hook(layer_hook(s), with_kwargs=True)
            hooks.callback(handle.remove)
            if neurons:
                down = feed_forward(layer)["down_proj"]
                hooks.callback(down.register_forward_pre_hook(neuron_hook(s)).remove)
        ids_BT = torch.from_numpy(document.tokens_T).long()[None].to(device or model.device)
        model.model(input_ids=ids_BT, use_cache=False)
    yield from zip(range(len(layers)), cosines, sizes, strict=True)


def choose_layers(
    importance_S: Sequence[float], layers: int, choice: LayerChoice
) -> tuple[int, ...]:
    """Return the ascending indices of the layers to keep.

    Args:
        importance_S: One figure for each layer; higher is kept sooner, of equals the earlier.
        layers: How many to keep.
        choice: `importance`, or `even` for evenly spaced ones with the first and the last.

    Raises:
        RecipeError: More layers are asked for than there are.
    """
    have = len(importance_S)
    if layers > have:
        raise RecipeError(
            f"student.layers must be at most {have}, the teacher's number of layers, got {layers}"
        )
    match choice:
        case "importance":
            ranked = sorted(range(have), key=lambda s: (-importance_S[s], s))
            return tuple(sorted(ranked[:layers]))
        case "even":
            if layers == 1:
                return (0,)
            return tuple(round(i * (have - 1) / (layers - 1)) for i in range(layers))


def choose_neurons(activity_F: Tensor, intermediate: int) -> Tensor:
    """Return the ascending indices of the `intermediate` most active neurons; of equals the earlier.

    Raises:
        RecipeError: More neurons are asked for than there are.
    """
    have = len(activity_F)
    if intermediate > have:
        raise RecipeError(
            f"student.intermediate must be at most {have}, the teacher's feed-forward width, "
            f"got {intermediate}"
        )
    ranked = torch.argsort(activity_F, descending=True, stable=True)
    return ranked[:intermediate].sort().values


def keep_layers(model: Any, kept: Sequence[int]) -> Any:
    """Return a copy of a model with some of its layers; the model itself stays as it is.

    Layer indices, for the cache and for lists in the configuration with one entry a layer, follow.

    Args:
        model: A Llama-like model.
        kept: Ascending layer indices.
    """
    layers = decoder_layers(model)
    # deepcopy takes what its memo already holds for the full list: dropped layers are never copied.
    memo: dict[int, Any] = {}
    chosen = nn.ModuleList(copy.deepcopy(layers[s], memo) for s in kept)
    memo[id(layers)] = chosen
    pruned = copy.deepcopy(model, memo)
    for s, layer in enumerate(chosen):
        modules: Iterator[Any] = layer.modules()
        for module in modules:
            if hasattr(module, "layer_idx"):
                module.layer_idx = s
    config = pruned.config
    for name in PER_LAYER_LISTS:
        entries = getattr(config, name, None)
        if isinstance(entries, list) and len(entries) == len(layers):
            setattr(config, name, [entries[s] for s in kept])
    config.num_hidden_layers = len(chosen)
    return pruned


@torch.no_grad()
def keep_neurons(model: Any, kept_SF: Sequence[Tensor]) -> None:
    """Cut a model's feed-forward blocks down to some of their neurons, in place.

    Args:
        model: A Llama-like model.
        kept_SF: For each layer the ascending indices of its neurons; equally many in all.
    """
    for layer, kept_F in zip(decoder_layers(model), kept_SF, strict=True):
        block = feed_forward(layer)
        for name in ("gate_proj", "up_proj"):
            linear: Any = block[name]
            linear.weight = nn.Parameter(linear.weight[kept_F].clone())
            if linear.bias is not None:
                linear.bias = nn.Parameter(linear.bias[kept_F].clone())
            linear.out_features = len(kept_F)
        down = block["down_proj"]
        down.weight = nn.Parameter(down.weight[:, kept_F].clone())
        down.in_features = len(kept_F)
        mlp: Any = layer.mlp
        if hasattr(mlp, "intermediate_size"):
            mlp.intermediate_size = len(kept_F)
    model.config.intermediate_size = len(kept_SF[0])


def feed_forward(layer: Any) -> dict[str, nn.Linear]:
    """Return the three projections of a gated feed-forward block by name.

    Raises:
        StudentError: The block is built otherwise, as in a mixture of experts.
    """
    mlp = getattr(layer, "mlp", None)
    found = {name: getattr(mlp, name, None) for name in _PROJECTIONS}
    linears = {name: linear for name, linear in found.items() if isinstance(linear, nn.Linear)}
    if len(linears) < len(_PROJECTIONS):
        raise StudentError(
            f"pruning feed-forward neurons knows blocks of {', '.join(_PROJECTIONS)}, and "
            f"{type(mlp).__name__} is not one; prune layers only"
        )
    return linears
