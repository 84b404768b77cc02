"""Write a model into a folder of its own, whole or not at all, with a record of what came from what."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from limbeck.artefact import hash_tree, write_json, write_text
from limbeck.errors import ExportError
from limbeck.export.formats import Target
from limbeck.model import LocalModel
from limbeck.pretrained import save, written_whole

RECORD = "exported.json"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export left."""

    folder: Path
    bytes: int
    """Of all files in the folder."""
    notes: tuple[str, ...]
    """What a reader should know of the weights, one sentence each."""


def export(local: LocalModel, folder: Path, target: Target, *, card: str | None = None) -> Exported:
    """Write a model in another format.

    The folder holds the weights, what reads and writes text, the model card, and `exported.json`: format,
    source with its hash, and the SHA-256 of every file.

    Args:
        local: The model, loaded in the number format that it is to keep.
        folder: Where to write; absent or empty.
        target: Format and quantisation.
        card: Model card, the text of README.md.

    Raises:
        ExportError: The format cannot hold the model, or the folder cannot be written or is not empty.
        MissingDependencyError: A package of the format is not installed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is there already; name another --out, or remove it")
    try:
        with written_whole(folder, replace=True) as partial:
            notes = _write(local, partial, target)
            if card is not None:
                write_text(partial / "README.md", card)
            write_json(partial / RECORD, _record(local, target, notes, hash_tree(partial)))
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror or error}") from error
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Exported(folder, size, notes)


def _write(local: LocalModel, folder: Path, target: Target) -> tuple[str, ...]:
    match target.format:
        case "safetensors":
            save(local.model, local.tokenizer, folder, dtype=target.quantise)
            return ()
        case "gguf":
            from limbeck.export.gguf_file import write_gguf

            return write_gguf(local, folder / "model.gguf", target.quantise)
        case "onnx":
            from limbeck.export.onnx_graph import write_onnx

            return write_onnx(local, folder, target.quantise)


def _record(
    local: LocalModel, target: Target, notes: tuple[str, ...], files: dict[str, str]
) -> dict[str, object]:
    return {
        "limbeck": importlib.metadata.version("limbeck"),
        "format": target.format,
        "quantise": target.quantise,
        "source": {
            "name": local.source,
            "weights_sha256": local.weights_sha256,
            "tokenizer_sha256": local.tokenizer_sha256,
            "licence": local.licence,
        },
        "notes": list(notes),
        "files": files,
    }
