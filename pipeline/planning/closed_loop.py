"""Solve, measure, correct the latency table, solve again, until the measured speedup is the requested one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.search.budget_dp import InfeasibleBudget
from profilers.latency_table import Choice, LatencyTable, PlanMeasurement
from profilers.table_fit import refit
from targets.errors import SpeedupError

MARGIN = 0.028
"""Aim this far above the request, so that the interval's lower end reaches it too."""
ACCEPTED = (0.016, 0.046)
"""Measured over requested, less one, with which a plan is taken."""
QUIET = 0.005
"""Standard error of a solved plan's measurement up to which margins suffice. Where it is more, the certificate's
interval will be wider too: the aim rises by the rest, and what is accepted with it."""
MOST_EXCESS = 0.03
"""The most by which they rise: no faster plan narrows an interval."""
TABLE_NOISE = 0.5
"""Of a solved plan's standard error to that of a table's: four times as many processes."""

REFITS = 3
"""Rounds after which the table is corrected. A solver finds anew what a changed table is wrong about; with the table at
rest its plans follow the budget smoothly, and scaling the budget alone ends the loop."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan that an allocator proposes for a budget, with its loss where it evaluated one."""

    choice: Choice
    loss: float | None


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of the loop."""

    number: int
    choice: Choice
    loss: float | None
    predicted_speedup: float
    measured_speedup: float


@dataclass(frozen=True, slots=True)
class LoopResult:
    """The plan taken, the corrected table, and how the loop got there."""

    choice: Choice
    loss: float | None
    predicted_speedup: float
    measured_speedup: float
    table: LatencyTable
    rounds: tuple[Round, ...]


Allocate = Callable[[LatencyTable, float, int], Proposal]
"""A plan for a table and a budget in seconds for the whole network; the third argument counts the rounds."""

Measure = Callable[[LatencyTable, Choice], PlanMeasurement]
"""Measures a plan that was solved with a table."""

Nearby = Callable[[LatencyTable, Choice], list[PlanMeasurement]]
"""Measures plans near one that was solved with a table."""


def run_loop(
    table: LatencyTable,
    speedup: float,
    allocate: Allocate,
    measure: Measure,
    nearby: Nearby,
    *,
    most_rounds: int = 7,
    accepted: tuple[float, float] | None = None,
    on_round: Callable[[Round], None] | None = None,
) -> LoopResult:
    """Find a plan whose *measured* speedup is the requested one, or a little more.

    Every round measures its plan. The first ones add that to the table, and plans near it where another round follows;
    all of them scale the next budget by what its allocator takes the plan for and what it measures. On a noisy machine
    they aim higher, as the table's own measurements scatter at first and then as those of solved plans do.

    Args:
        accepted: measured over requested, less one, with which a plan is taken at once; `ACCEPTED` by default.

    Raises:
        SpeedupError: no plan reaches the request; says what the fastest one measured.
    """
    least, most = accepted or ACCEPTED
    room = 0.0 if accepted else 1.0  # for a certificate's interval, where one is to come
    correction, scale, excess = 1.0, 1.0, _excess(TABLE_NOISE * _scatter(table))
    rounds: list[Round] = []
    for number in range(most_rounds):
        try:
            aims = (speedup * (1 + MARGIN + excess), speedup * (1 + MARGIN), speedup)
            proposal = _allocated(allocate, number, table, scale, aims)
        except InfeasibleBudget as error:
            if any(r.measured_speedup >= speedup for r in rounds):
                break
            raise unreachable(table, speedup) from error
        predicted = table.speedup(proposal.choice) / correction
        measured = measure(table, proposal.choice)
        this = Round(number, proposal.choice, proposal.loss, predicted, 1 / measured.relative)
        rounds.append(this)
        if on_round:
            on_round(this)
        excess = max(excess, _excess(measured.noise))
        over = this.measured_speedup / speedup - 1
        is_over = least + room * excess <= over <= most + 2 * excess or _goes_in_circles(rounds)
        if number < REFITS:
            table = refit(table, [measured, *([] if is_over else nearby(table, proposal.choice))])
        measured_s = measured.relative * table.dense_s
        correction = measured_s / table.predict(proposal.choice)
        scale = measured_s / table.charged_s(proposal.choice)
        if is_over:
            break
    return _result(table, speedup * (1 + least + room * excess), rounds)


def _scatter(table: LatencyTable) -> float:
    """Median standard error of the table's measured plans; 0 where none has one."""
    errors = [plan.noise for plan in table.measurements if plan.noise]
    return float(np.median(errors)) if errors else 0.0


def _excess(noise: float) -> float:
    """By how much the aim rises where a solved plan's measurement has this standard error."""
    return min(MOST_EXCESS, max(0.0, noise - QUIET))


def _allocated(allocate: Allocate, number: int, table: LatencyTable, scale: float, aims: Sequence[float]) -> Proposal:
    """The plan for the first of ``aims`` that is within reach: near the fastest there is little room for a margin.

    Raises:
        InfeasibleBudget: none is.
    """
    for aim in aims[:-1]:
        try:
            return allocate(table, table.dense_s / aim / scale, number)
        except InfeasibleBudget:
            continue
    return allocate(table, table.dense_s / aims[-1] / scale, number)


def _goes_in_circles(rounds: Sequence[Round]) -> bool:
    """Whether the last plan was measured before, as happens where levels are too coarse to meet the request."""
    return any(earlier.choice == rounds[-1].choice for earlier in rounds[:-1])


def _result(table: LatencyTable, least_speedup: float, rounds: Sequence[Round]) -> LoopResult:
    """The slowest round that is fast enough, else the fastest of all."""
    enough = [r for r in rounds if r.measured_speedup >= least_speedup]
    taken = min(enough, key=lambda r: r.measured_speedup) if enough else max(rounds, key=lambda r: r.measured_speedup)
    return LoopResult(taken.choice, taken.loss, taken.predicted_speedup, taken.measured_speedup, table, tuple(rounds))


def unreachable(table: LatencyTable, speedup: float, runtimes: Sequence[str] = ()) -> SpeedupError:
    """The error that says how fast the network can become here, and what binds it.

    Args:
        runtimes: others that may do better, in words.
    """
    fastest = table.costs().argmin(axis=1)
    best = max([table.speedup(tuple(int(i) for i in fastest)), *(1 / plan.relative for plan in table.measurements)])
    measured = max((1 / plan.relative for plan in table.measurements), default=1.0)
    fixed, least = table.fixed_s * 1e3, math.floor(100 * measured / (1 + MARGIN)) / 100
    return SpeedupError(
        f"{speedup:g}x is unreachable here: the fastest plan measured gives {measured:.2f}x, the fastest that the "
        f"latency table knows {best:.2f}x. Of the dense {table.dense_s * 1e3:.3g} ms, {fixed:.3g} ms are fixed: no "
        f"level changes them.\n{f'Lower --speedup to at most {least:.2f}, or try' if least > 1 else 'Try'} a larger "
        f"--batch-size or another --runtime{': ' * bool(runtimes)}{', '.join(runtimes)}.",
        fastest_measured=measured,
        fastest_predicted=best,
    )
