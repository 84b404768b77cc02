"""Tests of the door to all models."""

from pathlib import Path

import pytest

from limbeck.backends import load
from limbeck.errors import TeacherError


def test_a_relative_folder_is_found_from_its_base(tiny_teacher_folder: Path) -> None:
    loaded = load("tiny-teacher", dtype="float32", base=tiny_teacher_folder.parent)
    assert loaded.name == "tiny-teacher"
    assert loaded.source == "tiny-teacher"


def test_an_absolute_folder_ignores_the_base(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    loaded = load(str(tiny_teacher_folder), dtype="float32", base=tmp_path)
    assert loaded.model.config.num_hidden_layers == 4


def test_an_unknown_packaged_name_lists_the_known_ones() -> None:
    with pytest.raises(TeacherError, match=r"packaged:gpt.*smollm2-135m-instruct"):
        load("packaged:gpt", dtype="float32")


def test_a_model_behind_an_api_is_no_model_here() -> None:
    with pytest.raises(TeacherError, match="openai:m is behind an API"):
        load("openai:m", dtype="float32")


@pytest.mark.parametrize("name", ["hf:", "hf:a b", "hf:a/b/c", "hf:../x/y"])
def test_a_malformed_hub_name_is_refused_before_the_hub_is_asked(name: str) -> None:
    with pytest.raises(TeacherError, match="form hf:org/name"):
        load(name, dtype="float32")
