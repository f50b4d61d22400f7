"""From tables, database and an aim to the plan's file: a search, and the contest that may follow it."""

import time

from pipeline.compression.database import Database
from pipeline.contest import BEST, SEARCH, hold_contest
from pipeline.context import Run
from pipeline.plan import coefficients_of, load_plan, save_plan
from pipeline.searching import Searcher, solve_in_loop
from pipeline.tracking.events import tell
from pipeline.tracking.facts import search_facts
from profilers.latency_table import LatencyTable

PLAN, TABLE, CORRECTED_TABLE = "plan.json", "latency_table.json", "latency_table_corrected.json"


def find_plan(run: Run, aim: float, database_key: str) -> None:
    """A plan whose measured speedup is the aim → plan.json, and the corrected table.

    Where a certificate fell short of the request, the allocator of the plan that is there goes on from what it learned.

    Raises:
        SpeedupError: no plan is that fast.
    """
    start = time.perf_counter()
    path, known = run.folder.file(PLAN), None
    if aim != run.goal and path.exists():
        known = load_plan(path, run.units)[1]
    asked = known["allocator"] if known else run.config.allocator

    def show(evaluation: int, loss: float) -> None:
        tell(run.tracker, search_facts(evaluation, loss))

    searcher = Searcher(
        run,
        Database(run.folder.file("database")),
        SEARCH if asked == BEST else asked,
        database_key,
        coefficients_of(known) if known else None,
        tuple(known["choice"]) if known else None,
        show,
    )
    table = LatencyTable.load(run.folder.file(CORRECTED_TABLE if known else TABLE))
    found = solve_in_loop(run, searcher, table, aim, run.reporter.say)
    contest = hold_contest(run, found, aim, database_key, run.reporter.say) if asked == BEST else []
    if contest:
        asked, found = contest[0].allocator, contest[0].found
    save_plan(
        path,
        allocator=asked,
        contest=[entry.to_json() for entry in contest],
        requested_speedup=run.goal,
        found=found,
        units=run.units,
        levels=run.levels,
        errors=searcher.errors,
        trace=searcher.trace,
        coefficients=searcher.coefficients,
        seconds=time.perf_counter() - start,
        effort=searcher.effort(),
    )
    found.table.save(run.folder.file(CORRECTED_TABLE))
