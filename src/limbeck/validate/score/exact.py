"""Whether an answer is the gold text."""

import re
import string
import unicodedata

_EDGES = string.punctuation + "“”‘’«»„ "


def exact(text: str, gold: str) -> float:
    """Return 1 where the answer's first non-empty line, or all of it, is the gold text, else 0.

    Both are compared in Unicode form NFKC, without regard to case, runs of white space, or punctuation at the ends.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    wanted = plain(gold)
    return float(wanted in (plain(first), plain(text)))


def plain(text: str) -> str:
    """Return text folded as `exact` compares it."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", " ", folded).strip(_EDGES)
