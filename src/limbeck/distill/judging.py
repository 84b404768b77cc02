"""What a judge is asked about an answer, and which of its replies is a score. Pure."""

import re

from limbeck.distill.filter import Candidate
from limbeck.distill.recipe import JudgeRecipe

_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*", re.ASCII)


def question(recipe: JudgeRecipe, candidate: Candidate) -> str:
    """Return the question about one answer.

    The answer is put in as it is: what it says of itself can sway a judge, which no wording rules out.
    """
    turns = candidate.turns
    if len(turns) == 1:
        asked = turns[0].content
    else:
        asked = "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
    return recipe.question.format(
        prompt=asked,
        answer=candidate.answer,
        reference=candidate.reference or "",
        lowest=recipe.lowest,
        highest=recipe.highest,
    )


def read_score(reply: str, recipe: JudgeRecipe) -> float | None:
    """Return the score of a reply that is a number on the recipe's scale and nothing else, or None."""
    match = _NUMBER.fullmatch(reply)
    if match is None:
        return None
    score = float(match[1])
    return score if recipe.lowest <= score <= recipe.highest else None
