"""Trimming a real, tiny teacher's vocabulary."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from limbeck.distill.recipe import StudentRecipe, parse_recipe
from limbeck.distill.student import build_student, check_student, save_student
from limbeck.distill.targets import Taught
from limbeck.distill.trim import check_trims, decide
from limbeck.errors import RecipeError, StudentError
from limbeck.model import LocalModel


def test_a_corpus_trim_covers_its_text_and_the_teachers_heads(
    tiny_teacher: LocalModel, tiny_taught: list[Taught]
) -> None:
    some = tiny_taught[:3]
    vocabulary = decide(tiny_teacher, some, "corpus")
    assert len(vocabulary) < vocabulary.teacher_size
    for one in some:
        assert vocabulary.holds(one.document.tokens_T).all()
        assert vocabulary.holds(one.targets.ids_E[one.targets.is_head_E]).all()


@pytest.mark.parametrize(
    "recipe", [StudentRecipe(layers=2), StudentRecipe(init="scratch", layers=1)]
)
def test_a_trimmed_student_is_built_saved_and_loaded(
    recipe: StudentRecipe, tiny_teacher: LocalModel, tiny_taught: list[Taught], tmp_path: Any
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    vocabulary = decide(tiny_teacher, tiny_taught, 320)
    calibration = [t.document for t in tiny_taught]
    student = build_student(recipe, tiny_teacher, calibration, seed=0, vocabulary=vocabulary)
    assert student.record.vocabulary == 320 == len(student.tokenizer)
    save_student(student.model, student.tokenizer, tmp_path / "s", card="-")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "s", dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "s")
    ids = tokenizer("The river runs past the mill.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, student.model(ids).logits)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_pruned_logits_of_kept_tokens_are_those_without_the_trim(
    tiny_teacher: LocalModel, tiny_taught: list[Taught]
) -> None:
    vocabulary = decide(tiny_teacher, tiny_taught[:3], "corpus")
    documents = [t.document for t in tiny_taught]
    recipe = StudentRecipe(layers=2, intermediate=96)
    whole = build_student(recipe, tiny_teacher, documents, seed=0).model
    small = build_student(recipe, tiny_teacher, documents, seed=0, vocabulary=vocabulary).model
    tokens_T = tiny_taught[0].document.tokens_T
    with torch.no_grad():
        theirs = whole(torch.from_numpy(tokens_T).long()[None]).logits
        ours = small(torch.from_numpy(vocabulary.number(tokens_T)).long()[None]).logits
    torch.testing.assert_close(ours, theirs[..., vocabulary.kept_K])


def test_sizes_that_cannot_be_are_refused_before_anything_costly(tiny_teacher: LocalModel) -> None:
    check_trims(tiny_teacher, "corpus")
    for size in (100, 400):
        recipe = StudentRecipe(layers=2, vocabulary=size)
        with pytest.raises(RecipeError, match=r"student\.vocabulary must be at least 2\d\d"):
            check_student(recipe, tiny_teacher, None)


def test_a_configuration_that_names_a_foreign_token_is_refused(tiny_teacher: LocalModel) -> None:
    odd = replace(tiny_teacher, model=copy.deepcopy(tiny_teacher.model))
    odd.model.config.eos_token_id = 5000
    with pytest.raises(StudentError, match="names token 5000"):
        check_trims(odd, "corpus")


@pytest.mark.parametrize("kind", ["reverse_kl", "jsd", "total_variation"])
def test_a_loss_that_needs_the_trimmed_mass_is_refused_by_the_recipe(kind: str) -> None:
    raw = {
        "name": "x",
        "teacher": {"model": "m"},
        "corpus": {"template": "t"},
        "student": {"layers": 2, "vocabulary": "corpus"},
    }
    assert parse_recipe(raw).student.vocabulary == "corpus"
    with pytest.raises(RecipeError, match=r"student\.vocabulary, which goes with loss\.kind"):
        parse_recipe(raw | {"loss": {"kind": kind, "coarse_tail": True}})
