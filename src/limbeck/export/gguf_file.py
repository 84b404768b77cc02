"""A GGUF file that llama.cpp runs, of a model of the Llama or Qwen family.

The container, the names of tensors and the block formats are those of llama.cpp's own `gguf` package. What
is decided here is what goes in: which architecture a configuration stands for, the order of rotary rows,
which splitting of text a tokenizer stands for, and which tensors are quantised.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.errors import ExportError
from limbeck.extras import need
from limbeck.model import LocalModel

_BLOCK = 32
"""Weights of a row that share a scale, in every quantisation offered here."""
_LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPLITS = {
    "smollm": ("Digits", "ByteLevel"),
    "gpt-2": ("ByteLevel",),
    "llama-bpe": (_ENDINGS + _LETTERS + r"|\p{N}{1,3}" + _REST, "ByteLevel"),
    "qwen2": (_ENDINGS + _LETTERS + r"|\p{N}" + _REST, "ByteLevel"),
}
"""llama.cpp's name of a way to split text into words, to the steps that a tokenizer names for it."""


@dataclass(frozen=True, slots=True)
class _Family:
    """How llama.cpp calls an architecture, and what it expects of it."""

    name: str
    pairs_rows: bool
    """Whether rotary pairs are neighbouring rows; in `transformers` they are half a head apart."""
    biased: bool
    """Whether queries, keys and values have biases."""


_FAMILIES = {
    "llama": _Family("LLAMA", pairs_rows=True, biased=False),
    "mistral": _Family("LLAMA", pairs_rows=True, biased=False),
    "qwen2": _Family("QWEN2", pairs_rows=False, biased=True),
    "qwen3": _Family("QWEN3", pairs_rows=False, biased=False),
}


def write_gguf(local: LocalModel, path: Path, quantise: str | None) -> tuple[str, ...]:
    """Write a model and its tokenizer as one GGUF file.

    Vectors are always float32. With a quantisation below 8 bits the embedding, and with it a tied head,
    keeps 8 bits, for every token depends on it.

    Args:
        local: The model.
        path: The file.
        quantise: `f32`, `bf16`, `f16`, `q8_0`, `q5_0` or `q4_0`; None keeps bfloat16 or float32.

    Returns:
        Sentences on tensors that were not quantised as asked.

    Raises:
        ExportError: An architecture or tokenizer that has no counterpart in llama.cpp.
        MissingDependencyError: The package gguf is not installed.
    """
    need("--to gguf", "gguf", "gguf")
    import gguf

    config = local.model.config
    family = _family(config)
    tokens = _tokens(local.tokenizer, config.vocab_size)
    splits = _split_name(local.tokenizer)
    kind = (quantise or ("bf16" if str(local.model.dtype) == "torch.bfloat16" else "f32")).upper()
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[family.name]])
    _add_sizes(writer, config)
    _add_tokenizer(writer, local, tokens, splits)
    writer.add_file_type(gguf.LlamaFileType[("ALL_" if kind == "F32" else "MOSTLY_") + kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    odd: list[str] = []
    for name, weights in _tensors(local.model, family):
        wanted = _number_format(name, weights.shape, kind)
        if kind.startswith("Q") and wanted == "F16":
            odd.append(name)
        number_format = gguf.GGMLQuantizationType[wanted]
        writer.add_tensor(
            name, gguf.quants.quantize(weights, number_format), raw_dtype=number_format
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if not odd:
        return ()
    return (
        f"{len(odd)} tensors, {odd[0]} among them, have rows that are no multiple of {_BLOCK} and were kept "
        "in 16 bits",
    )


def _family(config: Any) -> _Family:
    family = _FAMILIES.get(config.model_type)
    if family is None:
        raise ExportError(
            f"--to gguf knows {', '.join(_FAMILIES)}, and this model is {config.model_type}; "
            "llama.cpp's own converter may know it"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    windows = [k for k in getattr(config, "layer_types", None) or () if k != "full_attention"]
    window = config.model_type == "mistral" and getattr(config, "sliding_window", None)
    for wrong, what in (
        (rope.get("rope_type", "default") != "default", f"rotary scaling {rope.get('rope_type')}"),
        (bool(windows) or bool(window), "attention within a window"),
        (config.hidden_act != "silu", f"the activation {config.hidden_act}"),
        (
            not family.biased and getattr(config, "attention_bias", False),
            "biases in its attention",
        ),
        (getattr(config, "mlp_bias", False), "biases in its feed-forward blocks"),
    ):
        if wrong:
            raise ExportError(f"--to gguf does not know {config.model_type} models with {what}")
    return family


def _add_sizes(writer: Any, config: Any) -> None:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float((config.rope_parameters or {}).get("rope_theta", 10_000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


# tensors


def _tensors(model: Any, family: _Family) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield llama.cpp's name and float32 values of every tensor; a tied head is left out."""
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.name], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise ExportError(f"--to gguf has no name for the tensor {name} of {config.model_type}")
        values = tensor.detach().float().cpu().numpy()
        projection = name.split(".")[-2]
        if family.pairs_rows and projection in heads:
            values = _paired(values, heads[projection])
        yield theirs, values


def _paired(rows: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Bring the two rows that are rotated together, half a head apart in `transformers`, side by side."""
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _number_format(name: str, shape: tuple[int, ...], kind: str) -> str:
    if len(shape) == 1:
        return "F32"
    if not kind.startswith("Q"):
        return kind
    if shape[-1] % _BLOCK:
        return "F16"
    return "Q8_0" if name.startswith(("token_embd", "output.")) else kind


# tokenizer


def _split_name(tokenizer: Any) -> str:
    """Return llama.cpp's name of how a tokenizer splits text into words.

    Raises:
        ExportError: It is not among those known here, so other text would fall into other tokens.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    splitter = content["pre_tokenizer"] or {}
    steps = splitter.get("pretokenizers", [splitter])
    found = tuple(_step(step) for step in steps)
    normalizer = (content["normalizer"] or {}).get("type")
    for name, known in _SPLITS.items():
        if found == known and normalizer in ((None, "NFC") if name == "qwen2" else (None,)):
            return name
    raise ExportError(
        f"--to gguf knows byte-level tokenizers that split text as {', '.join(_SPLITS)} do, and this one "
        f"({content['model']['type']}, {normalizer or 'no normaliser'}, {' then '.join(found)}) does not"
    )


def _step(step: Mapping[str, Any]) -> str:
    """Name a step, by its pattern where it has one; options that change the result make it another step."""
    match step:
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}:
            return pattern
        case {"type": "Digits", "individual_digits": True}:
            return "Digits"
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return "ByteLevel"
        case _:
            return str(step.get("type")) + " with options of its own"


def _tokens(tokenizer: Any, rows: int) -> list[tuple[str, int]]:
    """Return (token, llama.cpp's type) by id; rows past the tokenizer's tokens stand for no text."""
    import gguf

    content = json.loads(tokenizer.backend_tokenizer.to_str())
    if content["model"].get("type") != "BPE":
        raise ExportError(
            f"--to gguf knows byte-level BPE tokenizers, and this one is {content['model'].get('type')}"
        )
    kinds = gguf.TokenType
    tokens = [(f"[PAD{i}]", int(kinds.UNUSED)) for i in range(rows)]
    for token, i in content["model"]["vocab"].items():
        tokens[i] = (token, int(kinds.NORMAL))
    for added in content["added_tokens"]:
        kind = kinds.CONTROL if added["special"] else kinds.USER_DEFINED
        tokens[added["id"]] = (added["content"], int(kind))
    return tokens


def _add_tokenizer(
    writer: Any, local: LocalModel, tokens: list[tuple[str, int]], splits: str
) -> None:
    tokenizer = local.tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splits)
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_merges(
        [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]
    )
    stated = getattr(local.model.generation_config, "eos_token_id", None)
    ends = stated if isinstance(stated, list) else [stated]
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, ends[0] if ends[0] is not None else tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(_begins(tokenizer))
    writer.add_add_space_prefix(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _begins(tokenizer: Any) -> bool:
    """Tell whether a tokenizer puts its start token before every text.

    Raises:
        ExportError: It puts something else around a text.
    """
    around = tokenizer("")["input_ids"]
    if around not in ([], [tokenizer.bos_token_id]):
        raise ExportError(
            f"--to gguf cannot say that the tokenizer puts tokens {around} around every text"
        )
    return bool(around)
