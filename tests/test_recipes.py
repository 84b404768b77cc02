from pathlib import Path

import pytest

from limbeck.distill.recipe import load_recipe
from limbeck.terms import check_terms

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_shipped_recipe_loads_and_its_terms_allow_it(path: Path) -> None:
    from datetime import UTC, datetime

    recipe = load_recipe(path)
    assert recipe.name == path.stem
    check_terms(
        recipe.teacher.terms,
        model_licence=None,
        teacher=recipe.teacher.model,
        today=datetime.now(UTC).date(),
    )
