"""Put the items of a task to a model and score what it says."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from limbeck.progress import Progress
from limbeck.validate.outcome import Outcome
from limbeck.validate.respond import Respondent, asked
from limbeck.validate.score import score_answer
from limbeck.validate.score.choice import choose
from limbeck.validate.tasks import Item, Task


def score_items(
    task: Task, items: Sequence[Item], respondent: Respondent, progress: Progress
) -> list[Outcome]:
    """Return a model's outcome on each item.

    Args:
        task: How the items are asked and scored.
        items: At least one of the task's.
        respondent: The model.
        progress: Hears of every batch.

    Raises:
        ScoringError: The model cannot be asked so, as one without log-probabilities for a choice.
        TaskError: An item's gold cannot be used.
    """
    progress.begin("score", len(items), "items")
    put = [asked(task, item) for item in items]
    if task.settings.scorer == "choice":
        said = respondent.weigh(put, [i.choices for i in items], heard=progress.advance)
        chosen = [choose(i, s, task.settings.normalise) for i, s in zip(items, said, strict=True)]
        made = [
            Outcome(i.id, i.cluster, i.chance, c.score, None, c.choice, c.confidence)
            for i, c in zip(items, chosen, strict=True)
        ]
    else:
        longest = task.settings.max_new_tokens
        texts = respondent.write(put, max_new_tokens=longest, heard=progress.advance)
        made = [
            Outcome(i.id, i.cluster, i.chance, score_answer(task, i, text), text)
            for i, text in zip(items, texts, strict=True)
        ]
    progress.end(f"mean score {np.mean([o.score for o in made]):.3f}")
    return made


def shuffled(task: Task, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Damage written answers where weights are out of reach: every item gets the answer to the next one."""
    items = {item.id: item for item in task.items}
    moved = [*outcomes[1:], *outcomes[:1]]
    return [
        replace(mine, text=other.text, score=score_answer(task, items[mine.item], other.text or ""))
        for mine, other in zip(outcomes, moved, strict=True)
    ]
