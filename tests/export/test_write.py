"""A folder of an export: whole, with its record, or not there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from limbeck.artefact import hash_tree, read_json
from limbeck.errors import ExportError
from limbeck.export import export
from limbeck.export.formats import parse_target
from limbeck.model import LocalModel


def test_safetensors_load_without_limbeck_and_keep_their_numbers(
    tiny: LocalModel, tmp_path: Path
) -> None:
    done = export(tiny, tmp_path / "out", parse_target("safetensors", None), card="# Card\n")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokens = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(tokens).logits, tiny.model(tokens).logits)
    assert (tmp_path / "out" / "README.md").read_text() == "# Card\n"
    assert done.bytes == sum(p.stat().st_size for p in (tmp_path / "out").iterdir())


def test_safetensors_take_the_number_format_asked_for(tiny: LocalModel, tmp_path: Path) -> None:
    export(tiny, tmp_path / "out", parse_target("safetensors", "bfloat16"))
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}


def test_the_record_vouches_for_every_file_and_names_the_source(
    tiny: LocalModel, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    export(tiny, folder, parse_target("gguf", "q8_0"), card="# Card\n")
    record = read_json(folder / "exported.json")
    files = hash_tree(folder)
    del files["exported.json"]
    assert record["files"] == files
    assert {"model.gguf", "README.md"} == set(files)
    assert (record["format"], record["quantise"]) == ("gguf", "q8_0")
    assert record["source"]["weights_sha256"] == tiny.weights_sha256
    assert str(tmp_path) not in (folder / "exported.json").read_text()


def test_equal_models_make_equal_files(tiny: LocalModel, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export(tiny, tmp_path / name, parse_target("gguf", "q4_0"))
    assert hash_tree(tmp_path / "one") == hash_tree(tmp_path / "two")


def test_a_folder_that_holds_something_is_not_touched(tiny: LocalModel, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ExportError, match="is there already; name another --out"):
        export(tiny, tmp_path, parse_target("gguf", None))
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_what_fails_half_way_leaves_nothing(tiny: LocalModel, tmp_path: Path) -> None:
    tiny.model.config.hidden_act = "gelu"
    with pytest.raises(ExportError, match="gelu"):
        export(tiny, tmp_path / "out", parse_target("gguf", None))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_sentence(tiny: LocalModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export(tiny, tmp_path / "file" / "out", parse_target("gguf", None))
