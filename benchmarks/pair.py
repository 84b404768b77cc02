"""The pair that steps are timed on: a teacher, a student pruned out of it, text, and the teacher's targets."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from setting import Setting

from limbeck.backends import load
from limbeck.distill.capture import capture_documents
from limbeck.distill.packing import pack, rows_for_epoch
from limbeck.distill.recipe import StudentRecipe
from limbeck.distill.store import StoreSpec, StoreWriter
from limbeck.distill.student import build_student
from limbeck.distill.targets import Document
from limbeck.model import LocalModel
from limbeck.pretrained import save

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "text" / "wikitext2.test.txt.gz"
_CALIBRATION_DOCUMENTS = 8


def read_text(path: Path | None) -> str:
    """Return the text of a file, or WikiText-2's test split where the shared data lie."""
    if path is not None:
        return path.read_text(encoding="utf-8")
    if not _SHARED.is_file():
        raise SystemExit("no ../shared/data here: give --text FILE with at least 200 kB of prose")
    return gzip.decompress(_SHARED.read_bytes()).decode()


def make(setting: Setting, text: str) -> dict[str, int]:
    """Fill the setting's folder; return the parameters of both models and the vocabulary."""
    dtype = "bfloat16" if setting.precision == "bf16" else "float32"
    teacher = load(setting.teacher, dtype=dtype)
    documents = _documents(setting, teacher.tokenizer, text)
    recipe = StudentRecipe(init="prune", layers=setting.layers, layer_choice="importance")
    student = build_student(recipe, teacher, documents[:_CALIBRATION_DOCUMENTS], seed=setting.seed)
    save(teacher.model, teacher.tokenizer, setting.path / "teacher")
    save(student.model, student.tokenizer, setting.path / "student", dtype="float32")
    _write_tokens(setting, documents)
    with store_writer(setting, teacher, setting.path / "store") as writer:
        for taught in capture_documents(
            teacher, documents, StoreSpec(), batch_tokens=setting.tokens, seed=setting.seed
        ):
            writer.append(taught)
    setting.write()
    return {
        "vocabulary": vocabulary(teacher),
        "teacher_parameters": student.record.teacher_parameters,
        "student_parameters": student.record.parameters,
    }


def document(tokens_T: np.ndarray) -> Document:
    """Return a document with every position that has a next token as a loss position."""
    loss_T = np.arange(len(tokens_T)) < len(tokens_T) - 1
    return Document(tokens_T, loss_T, False, hashlib.sha256(tokens_T.tobytes()).hexdigest())


def store_writer(setting: Setting, teacher: LocalModel, folder: Path) -> StoreWriter:
    """Open a store of the default spec, a shard for every step's rows."""
    return StoreWriter(
        folder,
        StoreSpec(shard_documents=setting.rows),
        vocabulary=vocabulary(teacher),
        tokenizer_sha256=teacher.tokenizer_sha256,
        teacher={"name": teacher.name, "weights_sha256": teacher.weights_sha256},
    )


def vocabulary(teacher: LocalModel) -> int:
    """Return the number of tokens that the teacher's head knows."""
    return int(teacher.model.get_output_embeddings().weight.shape[0])


def _documents(setting: Setting, tokenizer: Any, text: str) -> list[Document]:
    count, length = setting.steps * setting.rows, setting.length
    ids = tokenizer(text[: count * length * 8], add_special_tokens=False)["input_ids"]
    if len(ids) < count * length:
        raise SystemExit(
            f"the text has {len(ids)} tokens, and {setting.steps} steps of {setting.rows} rows "
            f"of {length} need {count * length}; give a longer --text"
        )
    ids_NT = np.asarray(ids[: count * length], dtype=np.int32).reshape(count, length)
    return [document(tokens_T) for tokens_T in ids_NT]


def _write_tokens(setting: Setting, documents: list[Document]) -> None:
    """Write the batches in the order in which `train` reads them in its first epoch."""
    rows = pack([setting.length] * len(documents), setting.length, seed=setting.seed)
    order = [row.documents[0] for row in rows_for_epoch(rows, seed=setting.seed, epoch=0)]
    tokens_NT = np.stack([documents[n].tokens_T for n in order]).astype(np.int64)
    tokens_SBT = torch.from_numpy(tokens_NT).view(setting.steps, setting.rows, setting.length)
    save_file({"tokens_SBT": tokens_SBT}, setting.path / "tokens.safetensors")
