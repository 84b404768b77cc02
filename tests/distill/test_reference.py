from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from limbeck.distill.recipe import Recipe
from limbeck.distill.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_the_page_of_recipe_keys_is_that_of_the_fields() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == reference(), "run: python -m limbeck.distill.reference > docs/recipes.md"


def test_the_reference_lists_every_key() -> None:
    text = reference()
    for name, field in Recipe.model_fields.items():
        section: Any = next(
            (c for c in (field.annotation, *get_args(field.annotation)) if _is_section(c)), None
        )
        keys = [name] if section is None else list(section.model_fields)
        for key in keys:
            assert f"`{key}`" in text or f"[{name}.{key}]" in text, f"{name}.{key}"


def _is_section(candidate: object) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
