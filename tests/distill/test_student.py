"""Tests of building and saving students."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from limbeck.artefact import hash_tree, read_json
from limbeck.distill.recipe import Dtype, StudentRecipe
from limbeck.distill.student import build_student, check_student, save_student, scratch_config
from limbeck.distill.targets import Document
from limbeck.errors import RecipeError, StudentError, TokenizerMismatchError
from limbeck.model import LocalModel
from limbeck.pretrained import tokenizer_sha256

TEXTS = ("The river runs past the mill.", "Copper kettles shine on the shelf.")


@pytest.fixture
def teacher(tiny_teacher_folder: Path) -> LocalModel:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_teacher_folder, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    return LocalModel(
        name="tiny",
        model=model.eval(),
        tokenizer=tokenizer,
        weights_sha256="0" * 64,
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        licence=None,
        source=None,
    )


@pytest.fixture
def calibration(teacher: LocalModel) -> list[Document]:
    return [document(teacher.tokenizer(text)["input_ids"]) for text in TEXTS]


def document(tokens: Sequence[int]) -> Document:
    loss_T = np.ones(len(tokens), dtype=np.bool_)
    loss_T[-1] = False
    return Document(np.array(tokens, dtype=np.int32), loss_T, heldout=False, key="k")


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(torch.tensor([[5, 6, 7, 8]])).logits


def parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def test_pruning_nothing_away_gives_the_teacher_to_the_bit(
    teacher: LocalModel, calibration: list[Document]
) -> None:
    recipe = StudentRecipe(layers=4, intermediate=128)
    student = build_student(recipe, teacher, calibration, seed=0)
    assert torch.equal(logits(student.model), logits(teacher.model))
    assert student.record.kept_activity == pytest.approx((1.0,) * 4)
    assert "not fewer than the teacher" in student.record.notes[0]


def test_a_pruned_student_is_smaller_and_says_how_it_was_built(
    teacher: LocalModel, calibration: list[Document]
) -> None:
    recipe = StudentRecipe(layers=2, intermediate=96)
    record = build_student(recipe, teacher, calibration, seed=0).record
    assert record.parameters < record.teacher_parameters == parameters(teacher.model)
    assert (record.layers, record.teacher_layers, record.intermediate) == (2, 4, 96)
    assert record.kept_layers is not None
    assert record.layer_importance is not None
    assert len(record.layer_importance) == 4
    assert record.kept_activity is not None
    assert all(96 / 128 < share < 1 for share in record.kept_activity)
    assert record.calibration_positions == sum(d.positions for d in calibration)
    assert not record.notes
    assert json.loads(json.dumps(record.as_json(), allow_nan=False)) == record.as_json()


def test_even_layers_do_not_hang_on_the_text(
    teacher: LocalModel, calibration: list[Document]
) -> None:
    recipe = StudentRecipe(layers=2, layer_choice="even")
    assert build_student(recipe, teacher, calibration, seed=0).record.kept_layers == (0, 3)


def test_a_student_is_float32_even_of_a_bfloat16_teacher(
    teacher: LocalModel, calibration: list[Document]
) -> None:
    half = replace(teacher, model=copy.deepcopy(teacher.model).to(torch.bfloat16))
    student = build_student(StudentRecipe(layers=2), half, calibration, seed=0)
    assert {p.dtype for p in student.model.parameters()} == {torch.float32}
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    assert student.model.lm_head.weight is student.model.model.embed_tokens.weight


def test_building_twice_gives_the_same_weights(
    teacher: LocalModel, calibration: list[Document]
) -> None:
    for recipe in (StudentRecipe(layers=2, intermediate=64), StudentRecipe(init="scratch")):
        first, second = (
            build_student(recipe, teacher, calibration, seed=3).model.state_dict() for _ in range(2)
        )
        assert all(torch.equal(second[k], v) for k, v in first.items())


def test_frozen_embeddings_are_not_trained_nor_counted(
    teacher: LocalModel, calibration: list[Document]
) -> None:
    recipe = StudentRecipe(layers=2, freeze_embeddings=True)
    student = build_student(recipe, teacher, calibration, seed=0)
    frozen = [n for n, p in student.model.named_parameters() if not p.requires_grad]
    assert frozen == ["model.embed_tokens.weight"]
    embeddings = teacher.model.get_input_embeddings().weight.numel()
    assert student.record.trainable_parameters == student.record.parameters - embeddings


def test_more_layers_than_the_teacher_are_refused(
    teacher: LocalModel, calibration: list[Document]
) -> None:
    with pytest.raises(RecipeError, match=r"student\.layers must be at most 4"):
        build_student(StudentRecipe(layers=5), teacher, calibration, seed=0)


def test_fresh_weights_follow_the_seed_and_touch_no_global_state(teacher: LocalModel) -> None:
    recipe = StudentRecipe(init="scratch", layers=1)
    before = torch.get_rng_state()
    one, same, other = (build_student(recipe, teacher, [], seed=s).model for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(logits(one), logits(same))
    assert not torch.equal(logits(one), logits(other))


def test_overrides_shape_a_fresh_student(teacher: LocalModel) -> None:
    recipe = StudentRecipe(
        init="scratch", layers=6, intermediate=40, config={"hidden_size": 32, "rms_norm_eps": 1e-6}
    )
    student = build_student(recipe, teacher, [], seed=0)
    config = student.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.head_dim) == (6, 32, 8)
    assert config.intermediate_size == student.record.intermediate == 40
    assert student.model.generation_config.eos_token_id == teacher.tokenizer.eos_token_id
    assert logits(student.model).shape[-1] == len(teacher.tokenizer)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"hiden_size": 32}, r"student\.config\.hiden_size .*did you mean hidden_size"),
        ({"vocab_size": 5}, r"vocab_size must be the teacher's 400, got 5"),
        ({"hidden_size": 30}, r"multiple of its 4 attention heads, got 30"),
        ({"hidden_size": "wide"}, r"hidden_size must be a whole number, got 'wide'"),
        ({"num_hidden_layers": 3}, r"num_hidden_layers is 3, and student says 2"),
        ({"hidden_act": "snake_oil"}, r"student\.config makes no"),
    ],
)
def test_overrides_that_cannot_be_are_refused(
    teacher: LocalModel, config: dict[str, Any], sentence: str
) -> None:
    recipe = StudentRecipe(init="scratch", layers=2, config=config)
    with pytest.raises(RecipeError, match=sentence):
        build_student(recipe, teacher, [], seed=0)


def test_lists_with_an_entry_a_layer_follow_the_layers(teacher: LocalModel) -> None:
    config = copy.deepcopy(teacher.model.config)
    config.layer_types = ["full_attention", "sliding_attention"] * 2
    changed = scratch_config(config, {"num_hidden_layers": 3})
    assert changed.layer_types == ["full_attention", "sliding_attention", "full_attention"]


def test_a_folder_student_keeps_its_weights(teacher: LocalModel) -> None:
    given = replace(teacher, name="other", model=copy.deepcopy(teacher.model))
    recipe = StudentRecipe(init="folder", folder="other")
    student = build_student(recipe, teacher, [], seed=0, folder_model=given)
    assert torch.equal(logits(student.model), logits(given.model))
    assert student.model is not given.model


def test_another_tokenizer_is_refused_with_both_names(teacher: LocalModel) -> None:
    given = replace(teacher, name="stranger", tokenizer_sha256="f" * 64)
    recipe = StudentRecipe(init="folder", folder="stranger")
    with pytest.raises(TokenizerMismatchError, match=r"student stranger and teacher tiny"):
        build_student(recipe, teacher, [], seed=0, folder_model=given)


def padded(local: LocalModel, rows: int, name: str) -> LocalModel:
    model = copy.deepcopy(local.model)
    model.resize_token_embeddings(rows, mean_resizing=False)
    return replace(local, name=name, model=model)


@pytest.mark.parametrize(("teacher_rows", "student_rows"), [(416, 408), (408, 416), (400, 408)])
def test_padding_rows_follow_the_teachers_and_real_tokens_stay(
    teacher: LocalModel, teacher_rows: int, student_rows: int
) -> None:
    given = padded(teacher, student_rows, "student")
    large = padded(teacher, teacher_rows, "teacher")
    recipe = StudentRecipe(init="folder", folder="student")
    student = build_student(recipe, large, [], seed=0, folder_model=given)
    assert logits(student.model).shape[-1] == teacher_rows == student.model.config.vocab_size
    assert torch.equal(logits(student.model)[..., :400], logits(given.model)[..., :400])
    rows_VD = student.model.get_input_embeddings().weight
    last_D = given.model.get_input_embeddings().weight[min(student_rows, teacher_rows) - 1]
    assert all(torch.equal(row_D, last_D) for row_D in rows_VD[student_rows:])
    assert student.model.lm_head.weight is student.model.model.embed_tokens.weight
    assert f"{student_rows} became {teacher_rows}" in student.record.notes[0]


def test_padding_rows_are_never_made_up(teacher: LocalModel) -> None:
    recipe = StudentRecipe(init="folder", folder="student")
    large = padded(teacher, 408, "teacher")
    with pytest.raises(StudentError, match="no counterpart to copy"):
        build_student(recipe, large, [], seed=0, folder_model=teacher)


def test_a_saved_student_comes_back_to_the_bit(
    teacher: LocalModel, calibration: list[Document], tmp_path: Path
) -> None:
    student = build_student(StudentRecipe(layers=2, intermediate=96), teacher, calibration, seed=0)
    folder = tmp_path / "student"
    save_student(student.model, student.tokenizer, folder, card="# Card\n")
    back: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(logits(back), logits(student.model))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert tokenizer_sha256(tokenizer) == teacher.tokenizer_sha256
    assert tokenizer.chat_template == teacher.tokenizer.chat_template
    assert back.generation_config.eos_token_id == teacher.tokenizer.eos_token_id
    assert (folder / "README.md").read_text(encoding="utf-8") == "# Card\n"


def test_half_precision_on_disk_leaves_the_model_alone(
    teacher: LocalModel, calibration: list[Document], tmp_path: Path
) -> None:
    student = build_student(StudentRecipe(layers=2), teacher, calibration, seed=0)
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
    for dtype in dtypes:
        save_student(student.model, student.tokenizer, tmp_path / dtype, card="", dtype=dtype)
    sizes = [(tmp_path / d / "model.safetensors").stat().st_size for d in ("float32", "bfloat16")]
    assert sizes[1] < 0.55 * sizes[0]
    assert read_json(tmp_path / "bfloat16" / "config.json")["dtype"] == "bfloat16"
    assert {p.dtype for p in student.model.parameters()} == {torch.float32}
    back: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "bfloat16")
    for name, weight in back.state_dict().items():
        assert torch.equal(weight, student.model.state_dict()[name].to(torch.bfloat16))


LOAD = """
import sys

class NoLimbeck:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "limbeck":
            raise ImportError("limbeck is blocked")

sys.meta_path.insert(0, NoLimbeck())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids_BT = torch.tensor([tokenizer("The river")["input_ids"]])
print(model.generate(ids_BT, attention_mask=torch.ones_like(ids_BT), do_sample=False,
                     max_new_tokens=4).tolist()[0])
assert "limbeck" not in sys.modules
"""


def test_a_saved_student_runs_where_limbeck_is_not(
    teacher: LocalModel, calibration: list[Document], tmp_path: Path
) -> None:
    student = build_student(StudentRecipe(layers=2), teacher, calibration, seed=0)
    save_student(student.model, student.tokenizer, tmp_path / "student", card="")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "student")],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ids_BT = torch.tensor([teacher.tokenizer("The river")["input_ids"]])
    expected = student.model.generate(
        ids_BT, attention_mask=torch.ones_like(ids_BT), do_sample=False, max_new_tokens=4
    )
    assert json.loads(done.stdout.splitlines()[-1]) == expected.tolist()[0]


def test_a_student_replaces_an_earlier_one_and_leaves_no_debris(
    teacher: LocalModel, calibration: list[Document], tmp_path: Path
) -> None:
    folder = tmp_path / "student"
    for layers in (3, 2):
        student = build_student(StudentRecipe(layers=layers), teacher, calibration, seed=0)
        save_student(student.model, student.tokenizer, folder, card=f"{layers}")
    assert read_json(folder / "config.json")["num_hidden_layers"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["student"]


def test_a_failed_save_leaves_the_earlier_student_whole(
    teacher: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "student"
    save_student(teacher.model, teacher.tokenizer, folder, card="first")
    before = hash_tree(tmp_path)

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(teacher.tokenizer, "save_pretrained", full)
    with pytest.raises(StudentError, match="No space left on device"):
        save_student(teacher.model, teacher.tokenizer, folder, card="second")
    assert hash_tree(tmp_path) == before


def test_a_folder_of_something_else_is_not_replaced(teacher: LocalModel, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(StudentError, match="holds no model"):
        save_student(teacher.model, teacher.tokenizer, tmp_path, card="")
    assert (tmp_path / "letters.txt").exists()


def test_a_student_from_scratch_can_have_a_tokenizer_of_its_own(
    teacher: LocalModel, piece_tokenizer: Any, tmp_path: Path
) -> None:
    recipe = StudentRecipe(init="scratch", layers=2, tokenizer="pieces")
    student = build_student(recipe, teacher, [], seed=0, tokenizer=piece_tokenizer)
    assert student.tokenizer is piece_tokenizer
    save_student(student.model, student.tokenizer, tmp_path / "student", card="")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert loaded.config.vocab_size == len(piece_tokenizer)
    assert loaded.generation_config.eos_token_id == piece_tokenizer.eos_token_id
    assert loaded.config.bos_token_id == piece_tokenizer.bos_token_id


def test_a_folder_with_another_tokenizer_is_taken_whole_when_aligned(
    teacher: LocalModel, piece_tokenizer: Any
) -> None:
    given = replace(teacher, name="other", tokenizer=piece_tokenizer, tokenizer_sha256="1" * 64)
    recipe = StudentRecipe(init="folder", folder="other")
    with pytest.raises(TokenizerMismatchError, match=r"\[align\]"):
        build_student(recipe, teacher, [], seed=0, folder_model=given)
    with pytest.raises(TokenizerMismatchError):
        check_student(recipe, teacher, given)
    check_student(recipe, teacher, given, aligned=True)
    student = build_student(
        recipe, teacher, [], seed=0, folder_model=given, tokenizer=given.tokenizer
    )
    assert student.tokenizer is piece_tokenizer
    assert torch.equal(logits(student.model), logits(given.model))
