"""Text with the marked parts taken out, in whatever pieces it arrives."""

import re
from collections.abc import Iterable
from typing import Final

PAIRS: Final = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
    ("[THINK]", "[/THINK]"),
)
"""How models mark their reasoning in plain text. `<|end|>` alone means nothing; see `Tags.strays`."""


class Tags:
    """Pairs of marks, prepared for searching. Upper and lower case are the same."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = PAIRS) -> None:
        self.pairs = tuple((opening.lower(), closing.lower()) for opening, closing in pairs)
        self.closing_of = dict(self.pairs)
        openings, closings = self.closing_of.keys(), self.closing_of.values()
        self.strays = frozenset(one for one in closings if one != "<|end|>")
        """Closing marks that show, where nothing was opened, that the text before them was reasoning."""
        self.outside = _any({*openings, *self.strays})
        self.inside = {
            opening: _any({opening, closing}) for opening, closing in self.closing_of.items()
        }
        marks = {*openings, *closings}
        self.beginnings = frozenset(mark[:n] for mark in marks for n in range(1, len(mark)))
        self.longest = max((len(mark) for mark in marks), default=1)
        self.first = re.compile("[" + re.escape("".join({mark[0] for mark in marks})) + "]")

    def half(self, text: str, start: int) -> int:
        """Return how many characters at the end of `text` may be the beginning of a mark."""
        tail = text[max(start, len(text) - self.longest + 1) :].lower()
        found = self.first.search(tail)
        while found:
            if tail[found.start() :] in self.beginnings:
                return len(tail) - found.start()
            found = self.first.search(tail, found.start() + 1)
        return 0

    def left_open(self, text: str) -> str | None:
        """Return the opening mark that `text` leaves open at its end, or None."""
        visible = Visible(self)
        visible.feed(text)
        return visible.within


class Visible:
    """One text that arrives in pieces; gives back what is outside the marks.

    A mark is only known when it is complete, so what may be its beginning waits in `waiting`. Marks of one
    pair nest: a closing mark inside a quoted pair does not end the reasoning around it. Text that is left
    open is hidden to its end.
    """

    __slots__ = ("_depth", "_tags", "hid", "late", "waiting", "within")

    def __init__(self, tags: Tags, within: str | None = None) -> None:
        self._tags = tags
        self.within = within
        self._depth = 0 if within is None else 1
        self.waiting = ""
        self.hid = False
        """Whether the last piece had something taken out."""
        self.late = False
        """Whether a closing mark came where nothing was open: what stood before it has been given back."""

    def feed(self, piece: str) -> str:
        """Return what became visible with `piece`."""
        self.hid = False
        if self.within is None and not self.waiting and not self._tags.first.search(piece):
            return piece
        text = self.waiting + piece
        shown: list[str] = []
        place = 0
        while found := self._search(text, place):
            if self.within is None:
                shown.append(text[place : found.start()])
            place = found.end()
            self.hid = True
            self._turn(found.group().lower(), shown)
        half = self._tags.half(text, place)
        end = len(text) - half
        if self.within is None:
            shown.append(text[place:end])
        elif piece:
            self.hid = True
        self.waiting = text[end:]
        return "".join(shown)

    def finish(self) -> str:
        """Return what was still waiting: it was no mark after all."""
        waiting, self.waiting = self.waiting, ""
        self.hid = self.within is not None and bool(waiting)
        return "" if self.within is not None else waiting

    def _search(self, text: str, place: int) -> "re.Match[str] | None":
        pattern = self._tags.outside if self.within is None else self._tags.inside[self.within]
        return pattern.search(text, place)

    def _turn(self, mark: str, shown: list[str]) -> None:
        if self.within is not None:
            self._depth += 1 if mark == self.within else -1
            if self._depth == 0:
                self.within = None
        elif mark in self._tags.closing_of:
            self.within, self._depth = mark, 1
        else:
            self.late = True
            shown.clear()


def visible(tags: Tags, text: str, within: str | None = None) -> str:
    """Return what of a whole text is outside the marks.

    A closing mark that nothing opened shows that the text before it was reasoning too.
    """
    view = Visible(tags, within)
    return view.feed(text) + view.finish()


def _any(marks: Iterable[str]) -> "re.Pattern[str]":
    longest_first = sorted(marks, key=lambda mark: (-len(mark), mark))
    return re.compile("|".join(re.escape(mark) for mark in longest_first) or r"(?!)", re.IGNORECASE)
