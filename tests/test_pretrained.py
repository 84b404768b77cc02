"""Tests of model folders."""

import copy
import json
import logging as logging_levels
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from limbeck import pretrained
from limbeck.artefact import hash_tree, sha256_bytes, sha256_json, write_json


@pytest.fixture
def model(tiny_teacher_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_teacher_folder)


def test_a_tokenizer_keeps_its_hash_through_saving_and_loading(
    tiny_tokenizer: Any, tmp_path: Path
) -> None:
    first = pretrained.tokenizer_sha256(tiny_tokenizer)
    for round_trip in ("a", "b"):
        tiny_tokenizer.save_pretrained(tmp_path / round_trip)
        tiny_tokenizer = AutoTokenizer.from_pretrained(tmp_path / round_trip)
        assert pretrained.tokenizer_sha256(tiny_tokenizer) == first


def test_a_saved_tokenizer_has_the_same_bytes_online_and_off(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    for online in (True, False):
        tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder, local_files_only=not online)
        pretrained.save_tokenizer(tokenizer, tmp_path / str(online))
    assert hash_tree(tmp_path / "True") == hash_tree(tmp_path / "False")


def test_what_does_not_change_tokens_does_not_change_the_hash(tiny_tokenizer: Any) -> None:
    first = pretrained.tokenizer_sha256(tiny_tokenizer)
    other = copy.deepcopy(tiny_tokenizer)
    other.chat_template = "{{ messages }}"
    other(["a", "a longer text"], padding=True, truncation=True, max_length=3)
    other.backend_tokenizer.enable_padding(pad_id=2, pad_token="<|im_end|>")  # noqa: S106 (a token)
    other.backend_tokenizer.enable_truncation(max_length=4)
    assert pretrained.tokenizer_sha256(other) == first


def _digits(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)


def _lower(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def _added(tokenizer: Any) -> None:
    tokenizer.add_tokens([AddedToken("<kettle>", special=True)])


@pytest.mark.parametrize("change", [_digits, _lower, _added])
def test_what_changes_tokens_changes_the_hash(tiny_tokenizer: Any, change: Any) -> None:
    other = copy.deepcopy(tiny_tokenizer)
    change(other)
    assert pretrained.tokenizer_sha256(other) != pretrained.tokenizer_sha256(tiny_tokenizer)


def test_another_merge_order_changes_the_hash(
    tiny_teacher_folder: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["merges"].reverse()
    write_json(tmp_path / "tokenizer.json", content)
    other = AutoTokenizer.from_pretrained(tmp_path)
    assert pretrained.tokenizer_sha256(other) != pretrained.tokenizer_sha256(tiny_tokenizer)


def test_one_weight_file_has_its_own_hash_and_several_have_a_common_one(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    assert pretrained.weights_sha256([a]) == sha256_bytes(b"1")
    expected = sha256_json({"a": sha256_bytes(b"1"), "b": sha256_bytes(b"2")})
    assert pretrained.weights_sha256([a, b]) == expected


def test_shards_are_found_through_their_index(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    files = pretrained.weight_files(tmp_path)
    assert len(files) > 1
    assert files == sorted(tmp_path.glob("*.safetensors"))


def test_a_folder_without_weights_has_no_weight_files(tmp_path: Path) -> None:
    assert pretrained.weight_files(tmp_path) == []


def test_quiet_puts_everything_back_after_an_error() -> None:
    def fail() -> None:
        with pretrained.quiet():
            assert logging.get_verbosity() == logging_levels.ERROR
            raise ZeroDivisionError

    before = logging.get_verbosity()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert logging.get_verbosity() == before
    assert logging.set_tqdm_hook(None) is None


def test_saving_twice_gives_the_same_files(model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        pretrained.save(model, tiny_tokenizer, tmp_path / name, texts={"README.md": "x"})
    assert hash_tree(tmp_path / "a") == hash_tree(tmp_path / "b")


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_weights_can_be_read_by_whoever_reads_the_config(
    model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    pretrained.save(model, tiny_tokenizer, tmp_path / "m")
    modes = {stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "m").iterdir()}
    assert len(modes) == 1


def test_an_existing_folder_stays_where_replacing_is_off(
    model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    pretrained.save(model, tiny_tokenizer, tmp_path / "m", texts={"who": "first"}, replace=False)
    with pytest.raises(FileExistsError):
        pretrained.save(
            model, tiny_tokenizer, tmp_path / "m", texts={"who": "second"}, replace=False
        )
    assert (tmp_path / "m" / "who").read_text(encoding="utf-8") == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_an_untied_model_keeps_two_matrices_in_another_number_format(
    model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 2)
    pretrained.save(model, tiny_tokenizer, tmp_path / "m", dtype="bfloat16")
    back: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert torch.equal(back.lm_head.weight, back.model.embed_tokens.weight * 2)
