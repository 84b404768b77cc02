"""Progress on a terminal: a live bar where someone watches, plain lines where output is piped."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_EVERY_SECONDS = 15.0


class TerminalProgress:
    """Draws steps on a console; owns the live display between `with` and its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
        )
        self._task: TaskID | None = None
        self._step = ""
        self._unit = ""
        self._total: int | None = None
        self._done = 0
        self._started = 0.0
        self._spoken = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._bars.stop()

    def begin(self, step: str, total: int | None, unit: str) -> None:
        """Draw a new bar, or say what starts."""
        self._step, self._total, self._unit, self._done = step, total, unit, 0
        self._started = self._spoken = time.monotonic()
        if self._live:
            self._task = self._bars.add_task(step, total=total, unit=unit, note="")
        else:
            size = "" if total is None else f" ({total} {unit})"
            self._print(f"{step}{size}")

    def advance(self, by: int = 1, note: str = "") -> None:
        """Move the bar, or say now and then how far it is and how long it will take."""
        self._done += by
        if self._live and self._task is not None:
            self._bars.update(self._task, advance=by)
            if note:
                self._bars.update(self._task, note=note)
            return
        now = time.monotonic()
        if now - self._spoken < _LINE_EVERY_SECONDS or not self._total or not self._done:
            return
        self._spoken = now
        left = (now - self._started) / self._done * (self._total - self._done)
        tail = f", {note}" if note else ""
        line = f"  {self._step}: {self._done}/{self._total} {self._unit}, {left:.0f} s left{tail}"
        self._print(line)

    def end(self, note: str = "") -> None:
        """Fill the bar, or say how long the step took."""
        seconds = time.monotonic() - self._started
        if self._live and self._task is not None:
            done = self._total if self._total is not None else self._done
            self._bars.update(self._task, total=done or 1, completed=done or 1, note=note)
            self._bars.stop_task(self._task)
            return
        tail = f", {note}" if note else ""
        self._print(f"  {self._step}: done in {seconds:.1f} s{tail}")

    def skip(self, step: str, why: str) -> None:
        """Say that a step has nothing to do."""
        self._print(f"{step}: skipped, {why}", style="dim")

    def _print(self, line: str, style: str | None = None) -> None:
        # Names of folders may hold brackets, which are no markup.
        self._console.print(line, style=style, markup=False, highlight=False)
