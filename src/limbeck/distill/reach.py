"""Whether a recipe asks a teacher behind an API for what such a teacher can give, before anything is sent."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the recipe checks itself through this module
    from limbeck.distill.recipe import ApiRecipe, Recipe

_OPENAI = "openai:"


_DENSE = (
    "head_threshold",
    "max_head",
    "tail_samples",
    "tail_weight",
    "bytes_per_token",
    "max_gradient_mse",
)
_OURS = (
    "model",
    "messages",
    "prompt",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "seed",
    "n",
    "stream",
)
_OURS_TOO = ("logprobs", "top_logprobs", "prompt_logprobs", "user")


def check_extra(extra: Mapping[str, object]) -> None:
    """Raise ValueError where further fields of a request would change what other keys of the recipe say."""
    if taken := [name for name in extra if name in (*_OURS, *_OURS_TOO)]:
        raise ValueError(
            f"has {taken[0]} in extra, which Limbeck sends itself or must not: use the recipe's own key for it"
        )


def check_reached(model: str, api: object | None) -> None:
    """Raise ValueError where a model's name and an API section do not go together."""
    if model.startswith(_OPENAI) and api is None:
        raise ValueError(f"model {model} needs an api section with base_url")
    if api is not None and not model.startswith(_OPENAI):
        raise ValueError(f"has an api section, which goes with a model openai:NAME, not {model}")


def check_remote(recipe: "Recipe") -> None:
    """Raise ValueError where a recipe asks for what a teacher behind an API cannot give, or the other way round."""
    api, student = recipe.teacher.api, recipe.student
    if api is None:
        if student.base is not None:
            raise ValueError("has student.base, which goes with a teacher behind an API")
        return
    if student.init == "folder" and student.base is not None:
        raise ValueError('has student.base, which goes with student.init = "prune" or "scratch"')
    if student.init != "folder" and student.base is None:
        raise ValueError(
            f'with a teacher behind an API and student.init = "{student.init}" needs student.base: a model here that '
            "gives tokenizer and shape"
        )
    if here := [name for name, asked in _needs_weights(recipe) if asked]:
        raise ValueError(
            f"has {here[0]}, which needs the teacher's weights, and its teacher is behind an API; leave one out"
        )
    if recipe.capture.workers != 1:
        raise ValueError(
            f"needs capture.workers = 1 with an API, got {recipe.capture.workers}; "
            "teacher.api.limits.concurrency says how many requests are under way at once"
        )
    from limbeck.distill.recipe import CaptureRecipe  # the recipe imports this module

    usual = CaptureRecipe()
    if changed := [n for n in _DENSE if getattr(recipe.capture, n) != getattr(usual, n)]:
        raise ValueError(
            f"has capture.{changed[0]}, which says what to keep of a whole distribution; of an API's words everything "
            "is kept"
        )
    _check_said(recipe, api)


def _needs_weights(recipe: "Recipe") -> tuple[tuple[str, bool], ...]:
    return (
        ("student.vocabulary", recipe.student.vocabulary is not None),
        ('capture.targets = "none"', recipe.capture.targets == "none"),
        ("on_policy", recipe.on_policy is not None),
        ("validate", recipe.validation is not None),
    )


def _check_said(recipe: "Recipe", api: "ApiRecipe") -> None:
    """Check what is asked for against what the student is to learn from."""
    kind = recipe.loss.kind
    if (recipe.generate is None) != (api.prompt_logprobs is not None):
        raise ValueError(
            "with a teacher behind an API needs [generate], for it writes answers, or else "
            "teacher.api.prompt_logprobs, for it scores the corpus"
        )
    if api.top_logprobs is not None and api.prompt_logprobs is not None:
        raise ValueError(
            "has top_logprobs and prompt_logprobs; an API writes answers or scores text"
        )
    text_alone = api.top_logprobs is None and api.prompt_logprobs is None
    if text_alone and kind != "cross_entropy":
        raise ValueError(
            f'has loss.kind = "{kind}", which needs the teacher\'s probabilities, and an API that gives text alone '
            'has none: set loss.kind = "cross_entropy", or teacher.api.top_logprobs where the server offers them'
        )
    if not text_alone and (kind not in ("cross_entropy", "forward_kl") or recipe.loss.coarse_tail):
        raise ValueError(
            f'has loss.kind = "{kind}"{" with coarse_tail" * recipe.loss.coarse_tail}, but of an API\'s distribution '
            "only a few tokens and the mass of the rest are known: forward_kl and cross_entropy can use that"
        )
    if recipe.capture.temperature != 1 or recipe.loss.temperature != 1:
        raise ValueError(
            "with a teacher behind an API needs capture.temperature and loss.temperature = 1"
        )
    if (
        text_alone
        and recipe.train.positions < 1
        and recipe.train.position_choice == "teacher_entropy"
    ):
        raise ValueError(
            'has train.position_choice = "teacher_entropy", which an API that gives text alone does not tell'
        )
