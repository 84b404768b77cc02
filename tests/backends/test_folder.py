"""Tests of models in folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils import logging

from limbeck.artefact import read_json, sha256_file, write_json
from limbeck.backends.folder import Dtype, load_folder
from limbeck.errors import TeacherError


@pytest.fixture
def folder(tiny_teacher_folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_teacher_folder, tmp_path / "model"))


def refused(folder: Path, sentence: str) -> None:
    with pytest.raises(TeacherError, match=sentence) as caught:
        load_folder(folder, name="m", dtype="float32")
    assert "\n" not in str(caught.value)


def test_a_loaded_model_is_in_evaluation_mode_and_hashed(tiny_teacher_folder: Path) -> None:
    loaded = load_folder(tiny_teacher_folder, name="m", dtype="float32")
    assert not loaded.model.training
    assert loaded.weights_sha256 == sha256_file(tiny_teacher_folder / "model.safetensors")
    assert loaded.licence is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_come_in_the_asked_number_format(tiny_teacher_folder: Path, dtype: Dtype) -> None:
    loaded = load_folder(tiny_teacher_folder, name="m", dtype=dtype)
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)}


def test_loading_draws_no_bar_and_leaves_the_library_as_it_was(
    tiny_teacher_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    load_folder(tiny_teacher_folder, name="m", dtype="float32")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "none", r"none does not exist")


def test_a_file_in_place_of_a_folder_is_named(folder: Path) -> None:
    refused(folder / "config.json", "is a file")


def test_a_folder_without_config_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, r"has no config\.json")


def test_a_config_that_is_no_json_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")
    refused(folder, r"config\.json cannot be read")


def test_a_folder_without_weights_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "has no weights")


def test_a_folder_without_tokenizer_is_named(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, "has no tokenizer")


def test_a_malformed_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 1}', encoding="utf-8")
    refused(folder, "tokenizer of model folder")


def test_truncated_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(folder, r"model\.safetensors is damaged")


def test_weights_with_a_broken_header_are_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    refused(folder, r"model\.safetensors is damaged")


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index: dict[str, Any] = {
        "weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}
    }
    write_json(folder / "model.safetensors.index.json", index)
    refused(folder, "lacks weight file model-00001-of-00001")


def test_an_encoder_is_no_causal_language_model(folder: Path) -> None:
    config = {"model_type": "t5", "architectures": ["T5EncoderModel"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused(folder, "T5EncoderModel, which is not a causal language model")


def test_an_unknown_model_type_is_refused(folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": "perpetuum"})
    refused(folder, r"config\.json cannot be read")


def test_weights_that_the_config_calls_for_are_never_made_up(folder: Path) -> None:
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"num_hidden_layers": 5, "layer_types": None})
    refused(folder, r"lack model\.layers\.4")


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"intermediate_size": 96})
    refused(folder, "another shape")


def test_the_licence_comes_from_the_model_card(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# M\n", encoding="utf-8")
    assert load_folder(folder, name="m", dtype="float32").licence == "Apache-2.0"
