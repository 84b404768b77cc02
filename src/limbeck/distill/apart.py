"""Whether a recipe asks for what is only known where teacher and student read the same tokens."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the recipe checks itself through this module
    from limbeck.distill.recipe import Recipe


def apart(recipe: "Recipe") -> str | None:
    """Return what lets the student read other tokens than its teacher; None where both read the same."""
    if recipe.align is not None:
        return "[align]"
    return "a prompt for the teacher alone" if recipe.teacher.has_prefix else None


def check_apart(recipe: "Recipe") -> None:
    """Raise ValueError where a recipe lets both sides read apart and asks for what needs one text for both."""
    why = apart(recipe)
    if why is None:
        return
    if others := [name for name, asked in _needs_one_text(recipe) if asked]:
        raise ValueError(
            f"has {others[0]} and {why}, which do not go together: the first needs teacher and student to read the "
            "same tokens; leave one out"
        )


def _needs_one_text(recipe: "Recipe") -> tuple[tuple[str, bool], ...]:
    generate, aligned = recipe.generate, recipe.align is not None
    return (
        ("a teacher behind an API", recipe.teacher.is_remote),
        ("on_policy", recipe.on_policy is not None),
        ("student.vocabulary", recipe.student.vocabulary is not None),
        ('capture.targets = "none"', recipe.capture.targets == "none"),
        ("filter", recipe.filter is not None),
        ("generate.samples above 1", aligned and generate is not None and generate.samples > 1),
        ("validate", recipe.validation is not None and recipe.teacher.has_prefix),
    )
