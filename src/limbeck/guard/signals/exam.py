"""Whether a request has the form of a test item: lettered options, a demanded answer format, examples before it.

Benchmark runners show it on suites that nobody knows; so do quiz chats, and copiers who harvest question sets.
"""

_SECOND_OPTION = (
    "\nB.", "\nB)", "\nB:", "(B)", " B)", " b )", "\nb)", "\n2)", "Answer2", "Option2", "Solution2", "\n- no",
)  # fmt: skip
_MARKS = (
    "options:", "answer:", "choices:", "answer1", "option1", "solution1", "answer format", "true or false",
    "entailment", "premise:", "correct option", "multiple choice",
)  # fmt: skip
_LAST_MARK = "a:"
_LEAD, _TAIL = 1500, 1500


def exam(text: str) -> float:
    """Return 1 for options and a mark of a test item, 0.5 for either, 0 for neither; reads both ends."""
    ends = text if len(text) <= _LEAD + _TAIL else text[:_LEAD] + "\n" + text[-_TAIL:]
    folded = ends.lower()
    options = any(map(ends.__contains__, _SECOND_OPTION))
    marks = any(map(folded.__contains__, _MARKS)) or folded.rstrip().endswith(_LAST_MARK)
    return 0.5 * options + 0.5 * marks
