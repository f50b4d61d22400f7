"""Plans that need no search, brought to a measured speedup as the search's own are."""

from collections.abc import Callable

from pipeline.compression.database import Database
from pipeline.context import Run
from pipeline.planning.closed_loop import LoopResult
from pipeline.planning.searching import Searcher, solve_in_loop
from profilers.latency_table import LatencyTable

PROCESSES = 4
"""That measure a plain plan: what ships is measured anew by its certificate."""


def plain_allocators(run: Run) -> tuple[str, ...]:
    """Those that know what to do with the levels of a run."""
    return ("uniform", "global-magnitude") if run.only_unstructured else ("uniform",)


def solve_plainly(
    run: Run,
    allocator: str,
    table: LatencyTable,
    speedup: float,
    say: Callable[[str], None],
    accepted: tuple[float, float] | None = None,
) -> LoopResult:
    """A plain allocator's plan of a measured speedup.

    Args:
        accepted: as `pipeline.planning.closed_loop.run_loop` takes.

    Raises:
        SpeedupError: no such plan is that fast.
    """
    searcher = Searcher(run, Database(run.folder.file("database")), allocator)

    def tell(text: str) -> None:
        say(f"{allocator}, {text}")

    # they follow a single number, and find nothing that the table is wrong about: none near them need be measured
    return solve_in_loop(run, searcher, table, speedup, tell, accepted, PROCESSES, near=0)
