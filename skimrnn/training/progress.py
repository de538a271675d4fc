"""How a long run shows itself: a live bar on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 20.0


class Reporter(Protocol):
    """What the training loop tells about itself."""

    def update(self, step: int, expected_steps: int, status: str) -> None:
        """The run is at `step` and, if validation does not improve, will stop at `expected_steps`."""

    def message(self, text: str) -> None:
        """Something happened once."""


class ProgressReporter:
    """Reports to the standard error, as a bar where that is a terminal (and `bar` is set), else as plain lines."""

    def __init__(self, title: str, *, bar: bool = True) -> None:
        self._title = title
        self._bar: Progress | None = None
        self._task: TaskID
        self._last_line = time.monotonic()
        self._first_step: int | None = None
        self._started: float  # When it was at its first step: before, data are read.
        if bar and sys.stderr.isatty():
            # Imported here: a machine that only trains can do without it.
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("steps  {task.fields[status]}  ETA"),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=None, status="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, step: int, expected_steps: int, status: str) -> None:
        """Move the bar, or print a line if the last one is long ago."""
        if self._bar:
            self._bar.update(self._task, completed=step, total=expected_steps, status=status)
            return
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._started = step, now
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        done, seconds = step - self._first_step, now - self._started
        left = f"{(expected_steps - step) * seconds / done:.0f} s" if done else "unknown"
        print(f"{self._title}: step {step} of {expected_steps}, {status}, ETA {left}", file=sys.stderr, flush=True)

    def message(self, text: str) -> None:
        """Print one line."""
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(f"{self._title}: {text}", file=sys.stderr, flush=True)
