from pathlib import Path

from limbeck.distill.recipe import Recipe
from limbeck.distill.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_the_page_of_recipe_keys_is_that_of_the_fields() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == reference(), "run: python -m limbeck.distill.reference > docs/recipes.md"


def test_the_reference_lists_every_key() -> None:
    text = reference()
    for name, section in Recipe.model_fields.items():
        keys = getattr(section.annotation, "model_fields", {name: None})
        for key in keys:
            assert f"`{key}`" in text or f".{key}]" in text
