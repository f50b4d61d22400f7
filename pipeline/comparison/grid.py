"""Several ways to make a network as fast, side by side: one run a combination, each brought to its measured latency."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calibration.errors import DataError
from pipeline.backends.sharing import share
from pipeline.config import RunConfig, check_same
from pipeline.context import Run
from pipeline.execution import execute
from pipeline.planning.plan import load_plan, planned_sparsity
from pipeline.run_folder import RunFolder
from pipeline.setup import open_folder
from pipeline.training.recovery import shipped_accuracy
from targets.errors import ArtifactError, ConfigError, RuntimeMissingError, SpeedupError


@dataclass(frozen=True, slots=True)
class Combination:
    """One way to compress: what is asked, what chooses levels, which weights go, and what the others become."""

    speedup: float
    allocator: str
    criterion: str
    solver: str

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"{self.speedup:g}x-{self.allocator}-{self.criterion}-{self.solver}"


@dataclass(frozen=True, slots=True)
class GridRow:
    """What a combination gave, or why it gave nothing; the accuracy is that of the network that would ship.

    Args:
        goal: what was asked, over dense in fp32 on the same runtime.
        ended: where it gave nothing, ``unreachable`` or ``failed``.
        exit_code: that a run of it alone would have ended with.
    """

    combination: Combination
    goal: float | None = None
    measured_speedup: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    sparsity: float | None = None
    evaluations: int | None = None
    why_not: str = ""
    ended: str = ""
    exit_code: int = 0

    @property
    def is_reached(self) -> bool:
        """Whether the network is as fast as was asked; rounds may run out before one is."""
        return self.goal is not None and self.measured_speedup is not None and self.measured_speedup >= self.goal

    def to_json(self) -> dict[str, Any]:
        """With the combination's fields beside the others."""
        row = asdict(self)
        combination: dict[str, Any] = row.pop("combination")
        return combination | row


def combinations(
    speedups: Sequence[float], allocators: Sequence[str], criteria: Sequence[str], solvers: Sequence[str]
) -> list[Combination]:
    """Every combination once, those that share a latency table and a database next to each other."""
    return [
        Combination(speedup, allocator, criterion, solver)
        for speedup in dict.fromkeys(speedups)
        for criterion in dict.fromkeys(criteria)
        for solver in dict.fromkeys(solvers)
        for allocator in dict.fromkeys(allocators)
    ]


def compare_combinations(
    config: RunConfig,
    folder: Path,
    chosen: Sequence[Combination],
    prepare_run: Callable[[RunConfig, RunFolder], Run],
) -> list[GridRow]:
    """Take every combination to a corrected network whose measured speedup is the one asked for.

    Each has a run folder of its own in ``folder``, with which any stage can go on; what is finished is not repeated.

    Raises:
        ConfigError: a folder holds a run of another configuration.
    """
    rows: list[GridRow] = []
    done: list[tuple[Combination, RunFolder]] = []
    for combination in chosen:
        own = RunFolder(folder / combination.name)
        with own.lock():
            own_config = config.model_copy(update=asdict(combination) | {"compare": False})
            if stored := own.stored_config():
                check_same(own_config, RunConfig(**stored))
            run = prepare_run(own_config, own)
            run.check_inputs()  # before the folder is this configuration's
            open_folder(run)
            for other, earlier in reversed(done):
                _share(combination, own, other, earlier)
            run.reporter.stage(f"[bold]{combination.name}[/bold]")
            rows.append(_row(combination, run))
            done.append((combination, own))
    return rows


def _share(combination: Combination, own: RunFolder, other: Combination, earlier: RunFolder) -> None:
    """Take over what an earlier combination made with the same settings, and every measurement."""
    stages = ["probe", "dense", "calibrate"]
    stages += ["profile"] * (combination.speedup == other.speedup)
    same_weights = (combination.criterion, combination.solver) == (other.criterion, other.solver)
    share(own, earlier, stages + ["database"] * same_weights)


def _row(combination: Combination, run: Run) -> GridRow:
    try:
        execute(run, "prune")
    except (
        ConfigError,
        SpeedupError,
        RuntimeMissingError,
        ArtifactError,
        DataError,
    ) as error:  # the others can still be compared
        run.reporter.warn(str(error))
        ended = "unreachable" if isinstance(error, SpeedupError) else "failed"
        return GridRow(combination, why_not=str(error), ended=ended, exit_code=error.exit_code)
    plan, record = load_plan(run.folder.file("plan.json"), run.units)
    return GridRow(
        combination,
        goal=record["requested_speedup"],
        measured_speedup=record["measured_speedup"],
        loss=record["loss"],
        accuracy=shipped_accuracy(run),
        sparsity=planned_sparsity(plan, run.units),
        evaluations=record["search"]["evaluations"],
    )
