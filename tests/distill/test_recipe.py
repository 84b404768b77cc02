import copy
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.artefact import sha256_json
from limbeck.distill.objective import Kind, LossSpec
from limbeck.distill.recipe import OwnLossRecipe, Recipe, load_recipe, parse_recipe
from limbeck.errors import RecipeError

SMALLEST: dict[str, Any] = {
    "name": "small",
    "teacher": {"model": "packaged:smollm2-135m-instruct"},
    "corpus": {"files": ["text.jsonl"]},
    "student": {"layers": 12},
}
SMALLEST_TOML = """
name = "small"
[teacher]
model = "packaged:smollm2-135m-instruct"
[corpus]
files = ["text.jsonl"]
[student]
layers = 12
"""


def recipe(**changes: Any) -> Recipe:
    """The smallest recipe with `section__key=value` changes; None deletes."""
    raw = copy.deepcopy(SMALLEST)
    for path, value in changes.items():
        *sections, last = path.split("__")
        target = raw
        for section in sections:
            target = target.setdefault(section, {})
        if value is None:
            del target[last]
        else:
            target[last] = value
    return parse_recipe(raw)


def write(folder: Path, text: str = SMALLEST_TOML) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_smallest_recipe_has_every_default_written_out():
    assert recipe().as_json()["train"]["epochs"] == 1.0
    assert recipe().as_json()["generate"] is None


def test_toml_and_mapping_give_the_same_recipe(tmp_path: Path):
    assert load_recipe(write(tmp_path)) == recipe()


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("loss__temprature", "loss.temprature: did you mean temperature?"),
        ("teacher__terms__license", "teacher.terms.license: did you mean licence?"),
        ("generate__max_tokens", "generate.max_tokens: did you mean max_new_tokens?"),
        ("sead", "sead: did you mean seed?"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(key: str, nearest: str):
    with pytest.raises(RecipeError, match="known here: ") as caught:
        recipe(**{key: 1})
    assert nearest in str(caught.value)


def test_an_unknown_key_like_no_other_still_lists_the_known_ones():
    with pytest.raises(
        RecipeError, match=r"unknown recipe key loss\.xyzzy: known here: kind, temp"
    ):
        recipe(loss__xyzzy=1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train__rows", "4", "train.rows: input should be a valid integer, got '4'"),
        ("train__rows", 1.5, "got 1.5"),
        ("train__rows", True, "got True"),
        ("train__rows", 0, "greater than or equal to 1, got 0"),
        ("train__epochs", float("inf"), "train.epochs: input should be a finite number, got inf"),
        ("train__weight_decay", float("nan"), "finite number, got nan"),
        ("train__betas", [0.9, 1.0], "train.betas.1: input should be less than 1, got 1.0"),
        ("loss__kind", "kl", "loss.kind: input should be 'forward_kl'"),
        ("loss__temperature", 0, "greater than 0, got 0"),
        ("corpus__heldout_fraction", 1.0, "corpus.heldout_fraction: input should be less than 1"),
        ("corpus__max_length", 7, "greater than or equal to 8"),
        ("name", "../away", "recipe key name"),
        ("seed", -1, "recipe key seed"),
        ("teacher", "smollm", "recipe key teacher must be a section ([teacher]), got 'smollm'"),
        (
            "teacher__terms__as_of",
            "2026-01-01",
            "teacher.terms.as_of: input should be a valid date",
        ),
        ("teacher__model", None, "recipe key teacher.model is missing"),
        ("student__init", "folder", 'with init = "folder" needs folder'),
        ("student__folder", "x", 'has folder, which goes with init = "folder", not "prune"'),
        ("student__layers", None, "needs layers, intermediate or both"),
        ("student__config", {"a": 1}, 'config goes with init = "scratch"'),
        ("corpus__files", None, "exactly one of files, dataset and template, got none"),
        ("corpus__dataset", "x", "exactly one of files, dataset and template"),
        ("corpus__slots", {"a": ["b"]}, "has slots, which go with template"),
    ],
)
def test_a_wrong_type_range_or_combination_names_key_and_value(key: str, value: Any, message: str):
    with pytest.raises(RecipeError) as caught:
        recipe(**{key: value})
    assert message in str(caught.value)


def test_every_problem_of_a_recipe_is_named_at_once():
    with pytest.raises(RecipeError, match=r"seed.*; .*train\.rows"):
        recipe(seed=-1, train__rows=0)


def test_a_toml_date_is_a_date(tmp_path: Path):
    text = SMALLEST_TOML.replace("[corpus]", "[teacher.terms]\nas_of = 2026-01-31\n[corpus]")
    assert load_recipe(write(tmp_path, text)).teacher.terms.as_of == date(2026, 1, 31)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("loss.kind=jsd", "jsd"),
        ('loss.kind="jsd"', "jsd"),
        ("loss.kind = jsd", "jsd"),
    ],
)
def test_an_override_takes_toml_values_and_bare_words(tmp_path: Path, override: str, value: str):
    assert load_recipe(write(tmp_path), [override]).loss.kind == value


def test_an_override_reaches_sections_that_the_file_does_not_have(tmp_path: Path):
    read = load_recipe(write(tmp_path), ["generate.temperature=0.7", "teacher.terms.licence=MIT"])
    assert read.generate is not None
    assert (read.generate.temperature, read.teacher.terms.licence) == (0.7, "MIT")


def test_the_last_of_two_overrides_wins(tmp_path: Path):
    assert load_recipe(write(tmp_path), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "must have the form section.key=value"),
        ("=1", "must have the form section.key=value"),
        ("name.first=a", "name is a value, not a section"),
        ("loss.knid=jsd", "did you mean kind?"),
        ("seed=abc", "recipe key seed"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, message: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path), [override])
    assert message in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"absent\.toml does not exist"):
        load_recipe(tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b'{"name": "json"}'])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match="is not TOML"):
        load_recipe(path)


def test_a_folder_in_place_of_a_recipe_is_named(tmp_path: Path):
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)


def test_writing_out_a_default_does_not_change_the_hash():
    assert recipe(train__epochs=1.0).sha256 == recipe().sha256


def test_a_changed_default_would_change_the_hash():
    written_out = recipe().as_json()
    written_out["train"]["epochs"] = 2.0
    assert sha256_json(recipe().as_json()) == recipe().sha256 != sha256_json(written_out)


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_two_recipes_have_the_same_hash_only_if_they_are_the_same(one: int, other: int):
    assert (recipe(seed=one).sha256 == recipe(seed=other).sha256) == (one == other)


def test_a_store_has_a_part_for_each_worker_at_least():
    assert recipe(capture__workers=3).capture.store_parts == 3
    assert recipe(capture__workers=3, capture__parts=7).capture.store_parts == 7
    with pytest.raises(RecipeError, match=r"capture needs parts \(2\) for each of its 3 workers"):
        recipe(capture__workers=3, capture__parts=2)


def test_order_of_keys_does_not_change_the_hash():
    assert parse_recipe(dict(reversed(SMALLEST.items()))).sha256 == recipe().sha256


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        recipe().seed = 1  # pyright: ignore[reportAttributeAccessIssue] - that is the test


def test_a_teacher_that_is_asked_nothing_goes_with_plain_cross_entropy():
    asked_nothing = {"capture__targets": "none", "loss__kind": "cross_entropy"}
    assert recipe(**asked_nothing).capture.targets == "none"
    with pytest.raises(RecipeError, match=r'needs loss\.kind = "cross_entropy".* got "forward_kl"'):
        recipe(capture__targets="none")
    with pytest.raises(RecipeError, match=r"has \[generate\].*asked nothing"):
        recipe(**asked_nothing, generate={})
    chosen = {"train__positions": 0.5, "train__position_choice": "teacher_entropy"}
    with pytest.raises(RecipeError, match=r"the teacher's entropy is not known"):
        recipe(**asked_nothing, **chosen)
    assert recipe(**asked_nothing, train__positions=0.5).train.position_choice == "student_entropy"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student__vocabulary": 380}, r"on_policy.*and student\.vocabulary; leave one out"),
        (
            {"capture__targets": "none", "loss__kind": "cross_entropy"},
            r'on_policy.*and capture\.targets = "none"; leave one out',
        ),
        ({"train__accumulate": 2}, r"on_policy\.documents says how large a step is"),
        (
            {"train__positions": 0.5},
            r"trains on every position; leave train\.positions = 1, got 0\.5",
        ),
        (
            {"on_policy__max_new_tokens": 512},
            r"on_policy\.max_new_tokens \(512\) below train\.row_length",
        ),
        ({"loss__kind": "jsd"}, r"a \[loss\] that nothing reads: at on_policy\.fraction = 1"),
        ({"on_policy__loss": {"kind": "cross_entropy"}}, r"on_policy\.loss\.kind: input should be"),
        ({"on_policy__loss": {"cross_entropy": 0.5}}, r"unknown recipe key on_policy\.loss\.cross"),
    ],
)
def test_what_does_not_go_with_own_text_is_refused(changes: dict[str, Any], message: str):
    recipe(on_policy={})
    with pytest.raises(RecipeError, match=message):
        recipe(**({"on_policy": {}} | changes))


def test_own_text_takes_every_divergence_and_its_defaults():
    own = recipe(on_policy={}).on_policy
    assert own is not None
    kinds = set(get_args(OwnLossRecipe.model_fields["kind"].annotation))
    assert kinds == set(get_args(Kind)) - {"cross_entropy"}
    assert asdict(LossSpec(**own.loss.model_dump())) == asdict(LossSpec()) | {"kind": "reverse_kl"}


def test_a_loss_for_the_store_goes_with_some_text_from_the_store():
    mixed = recipe(on_policy={"fraction": 0.5}, loss__kind="jsd", loss__coarse_tail=True)
    assert mixed.loss.kind == "jsd"


ACROSS: dict[str, Any] = {
    "align": {"method": "chunks"},
    "student": {"init": "folder", "folder": "other"},
}


def test_another_tokenizer_needs_a_section_of_its_own():
    assert recipe().align is None
    assert recipe(**copy.deepcopy(ACROSS)).as_json()["align"] == {"method": "chunks"}
    uld = {"kind": "total_variation", "coarse_tail": True, "cross_entropy": 0.25}
    changed = copy.deepcopy(ACROSS) | {"align": {"method": "uld"}, "loss": uld}
    assert recipe(**changed).align is not None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"student": {"layers": 2}}, r"student.init = \"prune\", which keeps the teacher's"),
        ({"student": {"init": "scratch"}}, "needs student.tokenizer for"),
        ({"loss": {"temperature": 2.0}}, r"needs loss.temperature = 1.0 with \[align\], got 2.0"),
        ({"capture": {"temperature": 2.0}}, "needs capture.temperature = 1.0"),
        ({"train": {"positions": 0.5}}, "needs train.positions = 1.0"),
        ({"align": {"method": "uld"}}, "needs loss.kind = total_variation"),
        (
            {"align": {"method": "uld"}, "loss": {"kind": "total_variation"}},
            r"needs loss.coarse_tail = true with \[align\], got false",
        ),
        (
            {
                "align": {"method": "uld"},
                "loss": {"kind": "total_variation", "coarse_tail": True},
            },
            "needs loss.cross_entropy above 0",
        ),
        ({"align": {"method": "ulm"}}, "align.method"),
    ],
)
def test_what_does_not_go_with_another_tokenizer_is_refused(changes: dict[str, Any], why: str):
    with pytest.raises(RecipeError, match=why):
        recipe(**copy.deepcopy(ACROSS | changes))


def test_a_tokenizer_of_its_own_needs_align_and_fresh_weights():
    fresh = {"init": "scratch", "tokenizer": "other"}
    with pytest.raises(RecipeError, match=r"student.tokenizer, which needs \[align\]"):
        recipe(student=fresh)
    assert recipe(student=fresh, align={"method": "chunks"}).student.tokenizer == "other"
    with pytest.raises(RecipeError, match=r'tokenizer goes with init = "scratch"'):
        recipe(student={"layers": 2, "tokenizer": "other"})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"teacher__system": "a", "teacher__system_file": "b"}, "give one of them"),
        ({"teacher__prefix_messages": [{"role": "user", "content": "q"}]}, "end with an answer"),
        ({"teacher__prefix_messages": [{"role": "system", "content": "q"}]}, "role"),
        ({"teacher__system": ""}, "teacher.system"),
    ],
)
def test_a_teachers_prompt_is_whole(changes: dict[str, Any], why: str):
    with pytest.raises(RecipeError, match=why):
        recipe(**changes)
    assert not recipe().teacher.has_prefix
