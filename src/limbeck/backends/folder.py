"""A model in a folder of `transformers` files."""

import json
from pathlib import Path
from typing import Any, Literal

from limbeck.backends.licence import licence_of
from limbeck.errors import TeacherError
from limbeck.model import LocalModel
from limbeck.pretrained import quiet, tokenizer_sha256, weight_files, weights_sha256

Dtype = Literal["float32", "bfloat16"]
"""Number format of a loaded model's weights."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_folder(
    folder: Path, *, name: str, dtype: Dtype, source: str | None = None, licence: str | None = None
) -> LocalModel:
    """Load a folder's causal language model and tokenizer.

    Nothing is repaired: weights that are absent or of another shape are an error, and code that comes with
    a model is never run.

    Args:
        folder: With config.json, weights and a tokenizer.
        name: How the user named the model.
        dtype: `float32` or `bfloat16`.
        source: Where the weights came from; None takes the folder's name.
        licence: What the model's package states; None reads the model card.

    Raises:
        TeacherError: Something is missing, damaged or no causal language model.
    """
    _check_layout(folder)
    config = _read_config(folder)
    _check_causal(config, folder)
    files = weight_files(folder)
    _check_weights(files, folder)
    tokenizer = _read_tokenizer(folder)
    return LocalModel(
        name=name,
        model=_read_model(folder, dtype),
        tokenizer=tokenizer,
        weights_sha256=weights_sha256(files),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        licence=licence or licence_of(folder),
        source=source or folder.resolve().name,
    )


def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer alone.

    Raises:
        TeacherError: The folder holds none, or one that has no tokenizer.json form.
    """
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise TeacherError(f"folder {folder} holds no tokenizer (tokenizer.json)")
    return _read_tokenizer(folder)


def _check_layout(folder: Path) -> None:
    if not folder.exists():
        raise TeacherError(
            f"model folder {folder} does not exist; a model is a folder, hf:org/name or packaged:name"
        )
    if not folder.is_dir():
        raise TeacherError(
            f"model {folder} is a file; give the folder that holds config.json and the weights"
        )
    if not (folder / "config.json").is_file():
        raise TeacherError(f"model folder {folder} has no config.json")
    if not weight_files(folder):
        raise TeacherError(
            f"model folder {folder} has no weights (model.safetensors, or shards with their index)"
        )
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise TeacherError(f"model folder {folder} has no tokenizer (tokenizer.json)")


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        with quiet():
            return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise TeacherError(f"{folder / 'config.json'} cannot be read: {_line(error)}") from error


def _check_causal(config: Any, folder: Path) -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    )

    stated: list[str] = list(config.architectures or ())
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and (not stated or known & set(stated)):
        return
    what = ", ".join(stated) or f"model type {config.model_type}"
    raise TeacherError(f"model folder {folder} holds {what}, which is not a causal language model")


def _check_weights(files: list[Path], folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    for file in files:
        if not file.is_file():
            raise TeacherError(f"model folder {folder} lacks weight file {file.name}")
        if file.suffix != ".safetensors":
            continue
        try:
            with safe_open(file, framework="np"):
                pass
        except SafetensorError as error:
            raise TeacherError(f"weight file {file} is damaged: {_line(error)}") from error


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    # `tokenizers` raises bare Exception for a malformed file.
    except Exception as error:
        raise TeacherError(
            f"tokenizer of model folder {folder} cannot be read: {_line(error)}"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise TeacherError(
            f"tokenizer of model folder {folder} has no tokenizer.json form; only such are supported"
        )
    return tokenizer


def _read_model(folder: Path, dtype: Dtype) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        raise TeacherError(f"model folder {folder} cannot be loaded: {_line(error)}") from error
    model, report = loaded
    for kind, trouble in (("missing_keys", "lack"), ("mismatched_keys", "have another shape for")):
        if names := sorted(str(k[0] if isinstance(k, tuple) else k) for k in report[kind]):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise TeacherError(
                f"weights in model folder {folder} {trouble} {names[0]}{more}, which its config.json calls for"
            )
    return model.eval()


def _line(error: BaseException) -> str:
    """Return the first line of what went wrong."""
    text = str(error).strip()
    if isinstance(error, json.JSONDecodeError) or not text:
        return f"{type(error).__name__} {text}".strip()
    return text.splitlines()[0].rstrip(".")
