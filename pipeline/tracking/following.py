"""Where a run meets its tracker: around the whole run, and around each stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config import NOT_OF_THE_RESULT, RunConfig
from pipeline.tracking.events import Fact, State, Tracker, tell
from pipeline.tracking.facts import stage_facts
from targets.errors import UserError

Result = TypeVar("Result")


def follow_run(tracker: Tracker, config: RunConfig, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do a run's work; tell its settings before, and how it ended after, whatever way it ended."""
    tracker.emit(Fact("state", "run", "running"))
    tracker.emit(Fact("tag", "status", "running"))
    tracker.emit(Fact("tag", "error", ""))  # an earlier attempt may have left one
    for name, value in config.model_dump(mode="json", exclude=NOT_OF_THE_RESULT).items():
        if value is not None:
            tracker.emit(Fact("param", name, str(value)))
    try:
        result = work()
    except KeyboardInterrupt:
        _end(tracker, "interrupted", "killed")
        raise
    except BaseException as error:
        # What a user error says is meant to be read; what else failed may hold anything.
        tracker.emit(Fact("tag", "error", str(error) if isinstance(error, UserError) else type(error).__name__))
        tracker.emit(Fact("tag", "exit_code", str(getattr(error, "exit_code", 1))))
        _end(tracker, "failed", "failed")
        raise
    tracker.emit(Fact("tag", "exit_code", str(result["exit_code"])))
    _end(tracker, result["status"], "finished")
    return result


def follow_stage(tracker: Tracker, folder: Path, name: str, work: Callable[[], Result]) -> Result:
    """Do a stage's work; tell that it began, and what it found."""
    tracker.emit(Fact("tag", "stage", name))
    result = work()
    tell(tracker, stage_facts(folder, name))
    return result


def _end(tracker: Tracker, status: str, state: State) -> None:
    tracker.emit(Fact("tag", "status", status))
    tracker.emit(Fact("state", "run", state))
    tracker.close()
