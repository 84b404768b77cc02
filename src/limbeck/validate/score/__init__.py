"""Score one written answer against gold, in [0, 1]; each way of scoring has its module.

An answer that cannot be read (no number, no JSON, no program) scores 0: it is wrong, not missing.
"""

from limbeck.validate.score.exact import exact
from limbeck.validate.score.numeric import numeric
from limbeck.validate.score.pattern import pattern
from limbeck.validate.score.program import program
from limbeck.validate.score.structure import structure
from limbeck.validate.tasks import Item, Task

__all__ = ["score_answer"]


def score_answer(task: Task, item: Item, text: str) -> float:
    """Return the score of a written answer, in [0, 1].

    Args:
        task: Any but a choice by likelihood.
        item: The question.
        text: What the model wrote.

    Raises:
        TaskError: The item's gold cannot be used, such as a pattern that is none.
        ValueError: The task is a choice by likelihood.
    """
    settings = task.settings
    match settings.scorer:
        case "exact":
            return exact(text, item.gold)
        case "numeric":
            return numeric(text, item.gold, tolerance=settings.tolerance)
        case "regex":
            return pattern(text, item.gold)
        case "json_schema":
            return structure(text, item.gold, task.schema or {})
        case "unit_tests":
            return program(text, item.gold, timeout_s=settings.timeout_s)
        case _:
            raise ValueError(
                f"answers of task {task.name} ({settings.scorer}) are not scored as text"
            )
