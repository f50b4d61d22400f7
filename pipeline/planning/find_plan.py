"""From tables, database and an aim to the plan's file: a search, and the contest that may follow it."""

import time

from pipeline.compression.database import Database
from pipeline.context import Run
from pipeline.planning.contest import BEST, SEARCH, hold_contest
from pipeline.planning.plan import coefficients_of, load_plan, save_plan
from pipeline.planning.searching import Searcher, replace_evaluation, solve_in_loop
from pipeline.search.spdy import TraceRow
from pipeline.tracking.events import tell
from pipeline.tracking.facts import search_facts
from profilers.latency_table import LatencyTable

PLAN, TABLE, CORRECTED_TABLE = "plan.json", "latency_table.json", "latency_table_corrected.json"


def find_plan(run: Run, aim: float) -> None:
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
    earlier = [TraceRow(*row) for row in known["search"]["trace"]] if known else []

    def show(evaluation: int, loss: float) -> None:
        tell(run.tracker, search_facts(len(earlier) + evaluation, loss))

    searcher = Searcher(
        run,
        Database(run.folder.file("database")),
        SEARCH if asked == BEST else asked,
        coefficients_of(known) if known else None,
        tuple(known["choice"]) if known else None,
        show,
    )
    table = LatencyTable.load(run.folder.file(CORRECTED_TABLE if known else TABLE))
    found = solve_in_loop(run, searcher, table, aim, run.reporter.say)
    contest = known["contest"] if known else []
    if asked == BEST:
        entries = hold_contest(run, found, aim, run.reporter.say)
        contest = [entry.to_json() for entry in entries]
        asked, found = entries[0].allocator, entries[0].found
    save_plan(
        path,
        allocator=asked,
        contest=contest,
        requested_speedup=run.goal,
        proxy=run.proxy,
        found=found,
        units=run.units,
        levels=run.levels,
        errors=searcher.errors,
        trace=[*earlier, *(replace_evaluation(row, len(earlier)) for row in searcher.trace)],
        coefficients=searcher.coefficients,
        seconds=time.perf_counter() - start + (known["search"]["seconds"] if known else 0.0),
        effort=searcher.effort() if known is None or searcher.trace else known["search"]["effort"],
    )
    found.table.save(run.folder.file(CORRECTED_TABLE))
