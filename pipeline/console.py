"""What a person sees while the pipeline works: progress with time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_EVERY_S = 10.0


class Task:
    """One piece of work with a known number of steps, shown as a bar or as a line every few seconds."""

    def __init__(self, console: Console, title: str, total: int) -> None:
        self._console, self._title, self._total = console, title, total
        self._done = 0
        self._start = self._shown = time.monotonic()
        self._done_before = 0
        """Steps that were done when the clock was set: found done at the first look, or before work began anew."""
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self._id = self._bar.add_task(title, total=total, note="")
            self._bar.start()

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Show that ``done`` steps are finished; ``total`` may change as the work learns how much there is."""
        if done < self._done:  # it begins anew, as the rounds of a search do
            self._start, self._done_before = time.monotonic(), done
            if self._bar:
                self._bar.reset(self._id)
        elif not self._done:
            self._done_before = done - 1 if done else 0
        self._done, self._total = done, total or self._total
        if self._bar:
            self._bar.update(self._id, completed=done, total=self._total, note=note)
        elif time.monotonic() - self._shown >= PLAIN_EVERY_S:
            self._shown = time.monotonic()
            left = f", {self._seconds_left():.0f} s left" if done > self._done_before else ""
            self._console.print(f"  {self._title}: {done}/{self._total}{left}. {note}".rstrip(), highlight=False)

    def _seconds_left(self) -> float:
        """At the pace since the clock was set."""
        return (self._shown - self._start) / (self._done - self._done_before) * max(self._total - self._done, 0)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()


class Reporter:
    """Speaks to people, on standard error."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet, soft_wrap=True, highlight=False)
        self._start = time.monotonic()

    def stage(self, text: str) -> None:
        """A stage begins or was found done."""
        self.console.print(f"[dim]{time.monotonic() - self._start:6.1f}s[/dim] {text}")

    def say(self, text: str) -> None:
        """A line below the stage."""
        self.console.print(f"        {text}")

    def warn(self, text: str) -> None:
        """Something that the user should know about."""
        self.console.print(f"[yellow]warning:[/yellow] {text}")

    def table(self, table: Table) -> None:
        """A table."""
        self.console.print(table)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Task]:
        """Progress of one piece of work."""
        task = Task(self.console, title, total)
        try:
            yield task
        finally:
            task.close()
