"""The section of a student's model card that says what a validation found."""

import re
from collections.abc import Mapping
from typing import Any

from limbeck.figures import percent
from limbeck.validate.report import SCORERS, notes, share
from limbeck.validate.verdict import WORDS

_BEGIN = "<!-- limbeck validate: begin -->"
_END = "<!-- limbeck validate: end -->"


def card_section(report: Mapping[str, Any]) -> str:
    """Return the section as Markdown, between marks by which it is found again."""
    lines = [
        _BEGIN,
        "## Validation",
        "",
        str(report["sentence"]) + ".",
        "",
        "| task | scored by | items | chance | teacher | student | retention | verdict |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for task in report["ledgers"]["verified"]["tasks"]:
        kept = "no claim" if task["retention"] is None else share(task["retention"])
        cells = (
            task["task"],
            SCORERS[task["scorer"]],
            f"{task['items']:,}",
            percent(task["chance"]),
            percent(task["teacher"]),
            percent(task["student"]),
            kept,
            WORDS[task["verdict"]],
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {note}" for note in notes(report)), _END, ""]
    return "\n".join(lines)


def with_section(card: str, section: str) -> str:
    """Return a card with the section at its end, or in the place of an older one."""
    older = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}\n?", re.DOTALL)
    if older.search(card):
        return older.sub(lambda _: section, card, count=1)
    return f"{card.rstrip()}\n\n{section}"
