"""How much time is left, on a clock of the test's own."""

import io

import pytest
from rich.console import Console

import pipeline.console
from pipeline.console import Task


class Clock:
    """Seconds that pass when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(pipeline.console.time, "monotonic", lambda: self.now)
        self.file = io.StringIO()
        self.task = Task(Console(file=self.file, width=100), "searching", 60)

    def after(self, seconds: float, done: int, note: str = "") -> str:
        """The line that is shown when so many steps are done so much later."""
        self.now += seconds
        before = len(self.file.getvalue())
        self.task.update(done, note)
        return self.file.getvalue()[before:].strip()


def test_the_pace_so_far_says_how_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.after(2, 1)
    assert clock.after(28, 15, "best loss 0.1") == "searching: 15/60, 90 s left. best loss 0.1"
    assert clock.after(3, 16) == ""  # a line every few seconds


def test_a_round_that_begins_anew_is_not_paced_by_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.after(1, 1)
    clock.after(235, 60)
    assert clock.after(30, 1) == "searching: 1/60."
    assert clock.after(10, 11) == "searching: 11/60, 49 s left."


def test_what_was_done_before_is_not_counted_as_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.after(1, 40)  # a training that is taken up
    assert clock.after(19, 50) == "searching: 50/60, 18 s left."
