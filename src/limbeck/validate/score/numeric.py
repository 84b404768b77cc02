"""Whether an answer ends in the gold number."""

import math
import re
from fractions import Fraction

from limbeck.errors import TaskError

_NUMBER = re.compile(
    r"(?<![\w.])[-+−]?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?:\s?/\s?\d+(?:\.\d+)?)?"
)
_MARK = re.compile(r"####|\\boxed\{|\banswer(?: is|:)", re.IGNORECASE)


def numeric(text: str, gold: str, *, tolerance: float) -> float:
    r"""Return 1 where the answer's number equals the gold number within a relative tolerance, else 0.

    The answer's number is the first one after the last mark (`####`, `\boxed{`, "answer is", "answer:"), or without a
    mark the last one. `1,234.5`, `-3`, `2/3` and `1e3` are numbers; a sign counts, units and currency do not.

    Args:
        text: What the model wrote.
        gold: A text whose number is read by the same rule.
        tolerance: Allowed error over the gold number's size; for a gold number of 0, over 1.

    Raises:
        TaskError: Gold holds no number.
    """
    wanted = number(gold)
    if wanted is None:
        raise TaskError(f"gold {gold!r} holds no number")
    found = number(text)
    if found is None:
        return 0.0
    return float(abs(found - wanted) <= tolerance * (abs(wanted) or 1.0))


def number(text: str) -> float | None:
    """Return the number that a text ends in, or None."""
    marks = list(_MARK.finditer(text))
    if marks and (after := _NUMBER.search(text, marks[-1].end())):
        return _value(after.group())
    found = _NUMBER.findall(text)
    return _value(found[-1]) if found else None


def _value(written: str) -> float | None:
    plain = written.replace(",", "").replace("−", "-").replace(" ", "")
    top, _, bottom = plain.partition("/")
    try:
        value = float(Fraction(top) / Fraction(bottom)) if bottom else float(top)
    except (ZeroDivisionError, OverflowError):
        return None
    return value if math.isfinite(value) else None
