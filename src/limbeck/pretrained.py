"""A `transformers` model folder: written whole or not at all, named by hashes, handled in silence."""

import contextlib
import json
import shutil
import uuid
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from limbeck.artefact import read_json, sha256_file, sha256_json, write_json, write_text

# Imported for its values alone: torch and transformers load inside the functions that need them.

_TOKENIZER_PARTS = ("added_tokens", "normalizer", "pre_tokenizer", "model")


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep `transformers` from drawing bars and logging below errors; afterwards all is as it was."""
    from transformers.utils import logging

    def no_bar(_factory: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        return logging.EmptyTqdm(*args, **kwargs)

    verbosity = logging.get_verbosity()
    hook = logging.set_tqdm_hook(no_bar)
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.set_tqdm_hook(hook)


def tokenizer_sha256(tokenizer: Any) -> str:
    """Return a hash of what decides into which tokens a text falls.

    That is the vocabulary with its merges, the added tokens, the normaliser and the pre-tokeniser. Chat
    template, padding, truncation and the tokens put around a text do not count.

    Args:
        tokenizer: A `transformers` tokenizer with a `tokenizers` backend.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return sha256_json({part: content.get(part) for part in _TOKENIZER_PARTS})


def weight_files(folder: Path) -> list[Path]:
    """Return the files that `transformers` reads the weights of a folder from, sorted; may be missing ones.

    An index wins over a single file's absence, safetensors over `.bin`. Empty where there are no weights.
    """
    for single in ("model.safetensors", "pytorch_model.bin"):
        if (folder / single).is_file():
            return [folder / single]
        index = folder / f"{single}.index.json"
        if index.is_file():
            return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    return []


def weights_sha256(files: list[Path]) -> str:
    """Return a weight file's own SHA-256; of several, the hash of {name: SHA-256}."""
    if len(files) == 1:
        return sha256_file(files[0])
    return sha256_json({file.name: sha256_file(file) for file in files})


def save(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    dtype: str | None = None,
    texts: Mapping[str, str] | None = None,
    replace: bool = True,
) -> None:
    """Write a model and its tokenizer so that the folder holds everything or does not exist.

    The model itself is not changed. Replacing takes two renames: a crash between them leaves the old
    folder beside its place under a hidden name.

    Args:
        model: A `transformers` model.
        tokenizer: Its tokenizer.
        folder: Where to write.
        dtype: Number format of the weights on disk, such as `bfloat16`; None keeps each as it is.
        texts: Further files, name to content.
        replace: Whether a folder that is there already gives way.

    Raises:
        FileExistsError: The folder is there, not empty, and `replace` is off.
        OSError: The disk is full or the place cannot be written.
    """
    with written_whole(folder, replace=replace) as partial:
        _write(model, tokenizer, partial, dtype)
        for name, text in (texts or {}).items():
            write_text(partial / name, text)


@contextlib.contextmanager
def written_whole(folder: Path, *, replace: bool) -> Generator[Path]:
    """Give a folder to write into, which becomes `folder` at the end of the block, or goes if that fails.

    Raises:
        FileExistsError: The folder is there, not empty, and `replace` is off.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        yield partial
        _move(partial, folder, replace=replace)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(model: Any, tokenizer: Any, folder: Path, dtype: str | None) -> None:
    from safetensors import SafetensorError

    with quiet():
        state = None if dtype is None else _cast(model.state_dict(), dtype)
        try:
            model.save_pretrained(folder, state_dict=state)
        except SafetensorError as error:  # a full disk, for one
            raise OSError(f"the weights cannot be written: {error}") from error
        if dtype is not None:
            config = read_json(folder / "config.json")
            write_json(folder / "config.json", config | {"dtype": dtype})
        save_tokenizer(tokenizer, folder)
    mode = (folder / "config.json").stat().st_mode
    for file in weight_files(folder):
        file.chmod(mode)  # safetensors makes them readable by their owner alone


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer's files, which say nothing of how this process came by it: the same hashes online and off."""
    tokenizer.save_pretrained(folder)
    config = read_json(folder / "tokenizer_config.json")
    if config.pop("local_files_only", None) is not None:
        write_json(folder / "tokenizer_config.json", config)


def _cast(state: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Convert floating tensors, one that lies under two names once, so that it stays tied."""
    import torch

    target: torch.dtype = getattr(torch, dtype)
    converted: dict[tuple[int, tuple[int, ...]], Any] = {}
    result: dict[str, Any] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key not in converted:
            converted[key] = tensor.to(target) if tensor.is_floating_point() else tensor
        result[name] = converted[key]
    return result


def _move(partial: Path, folder: Path, *, replace: bool) -> None:
    if not folder.exists():
        try:
            partial.rename(folder)
        except OSError:
            # Between the look and the rename another process may have put its own there.
            if folder.exists():
                raise FileExistsError(f"folder {folder} exists") from None
            raise
        return
    if not replace:
        raise FileExistsError(f"folder {folder} exists")
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.old")
    folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)
