"""Whether an answer holds a pattern."""

import regex

from limbeck.errors import TaskError

_PATIENCE_S = 1.0


def pattern(text: str, gold: str) -> float:
    """Return 1 where the gold regular expression is found in the answer, else 0.

    A search that takes longer than a second, as a pattern with nested repeats may on a hostile answer, finds nothing.

    Raises:
        TaskError: Gold is no regular expression.
    """
    try:
        found = regex.search(gold, text, timeout=_PATIENCE_S)
    except regex.error as error:
        raise TaskError(f"gold {gold!r} is no regular expression: {error}") from None
    except TimeoutError:
        return 0.0
    return float(found is not None)
