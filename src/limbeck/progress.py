"""How long work tells where it is."""

from typing import Protocol


class Progress(Protocol):
    """Hears about steps and how far each has come; the command line draws it, tests ignore it."""

    def begin(self, step: str, total: int | None, unit: str) -> None:
        """A step starts; `total` units lie ahead, or None where that is unknown."""
        ...

    def advance(self, by: int = 1, note: str = "") -> None:
        """`by` more units are done; `note` is a short live figure such as the loss."""
        ...

    def end(self, note: str = "") -> None:
        """The step is done."""
        ...

    def skip(self, step: str, why: str) -> None:
        """A step's output is already there."""
        ...


class Silent:
    """Progress that nobody watches."""

    def begin(self, step: str, total: int | None, unit: str) -> None:
        """Ignore it."""

    def advance(self, by: int = 1, note: str = "") -> None:
        """Ignore it."""

    def end(self, note: str = "") -> None:
        """Ignore it."""

    def skip(self, step: str, why: str) -> None:
        """Ignore it."""


class Named:
    """Passes progress on under another step's name."""

    def __init__(self, inner: Progress, name: str) -> None:
        self._inner = inner
        self._name = name

    def begin(self, step: str, total: int | None, unit: str) -> None:
        """Pass it on under this name."""
        self._inner.begin(self._name, total, unit)

    def advance(self, by: int = 1, note: str = "") -> None:
        """Pass it on."""
        self._inner.advance(by, note)

    def end(self, note: str = "") -> None:
        """Pass it on."""
        self._inner.end(note)

    def skip(self, step: str, why: str) -> None:
        """Pass it on under this name."""
        self._inner.skip(self._name, why)
