"""The budget's dynamic program against the form of SPDY's Algorithm 1, and against the true optimum.

    SPDY_DATA=... python -m benchmarks.budget_dp

Compares, on the SPDY authors' timing files and on generated ones with 100 layers: CPU seconds a solve, timed in turns,
and the error above scipy's `milp` optimum. The other form rounds every cost up to a whole bucket, so that it keeps the
budget too, and moves over all buckets once a layer and level.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy

from pipeline.search.budget_dp import solve_budget
from tests.search.timings import Rows, generated_timings, milp_optimum, quadratic, read_timings

BUCKETS = 10_000
REPEATS = 15
RESULT = Path(__file__).parent / "results" / "budget_dp.json"


@dataclass(frozen=True)
class Case:
    """A budget problem with a name."""

    name: str
    errors: Rows
    costs: Rows
    budget_s: float


@dataclass(frozen=True)
class Row:
    """What was found for one case; seconds are the process's CPU time, gaps are relative to milp's optimum."""

    case: str
    units: int
    solve_cpu_s: float
    bucket_dp_cpu_s: float
    times_faster: float
    optimum: float
    gap: float
    bucket_dp_gap: float
    cost_over_budget: float


def bucket_dp(errors: Rows, costs: Rows, budget: float, buckets: int) -> float:
    """Least error by Algorithm 1 of SPDY: one slice of all buckets a layer and level, with the choices kept."""
    best = np.zeros(buckets + 1)
    choices = np.zeros((len(costs), buckets + 1), dtype=np.uint8)
    for u, (unit_errors, unit_costs) in enumerate(zip(errors, costs, strict=True)):
        after = np.full(buckets + 1, np.inf)
        for level, steps in enumerate(np.ceil(unit_costs / budget * buckets).astype(int)):
            if steps <= buckets:
                candidate = best[: buckets + 1 - steps] + unit_errors[level]
                better = candidate < after[steps:]
                after[steps:][better] = candidate[better]
                choices[u, steps:][better] = level
        best = after
    return float(best[-1])


def cases(data: Path) -> Iterator[Case]:
    files = {"rn18": (2.0,), "rn50": (2.0, 3.0, 4.0), "yolov5s": (1.5, 1.75)}
    dense = ("conv1", "fc", "model.0.conv", "model.24.m.0")
    for name, speedups in files.items():
        timings = read_timings(data / "spdy_timings" / f"{name}_unstr.txt")
        costs = timings.costs(dense)
        for speedup in speedups:
            yield Case(f"{name} at {speedup}x", quadratic(costs), costs, timings.budget(speedup))
    rng = np.random.default_rng(0)
    timings = read_timings(data / "spdy_timings" / "rn50_unstr.txt")
    costs = timings.costs(dense)
    for i in range(3):
        errors = [rng.uniform() * row for row in quadratic(costs)]
        yield Case(f"rn50 at 3.0x, random coefficients {i}", errors, costs, timings.budget(3.0))
    for i in range(3):
        costs = generated_timings(100, 42, rng)
        errors = [rng.uniform() * row for row in quadratic(costs)]
        yield Case(f"100 generated layers {i}", errors, costs, 0.45 * sum(row[0] for row in costs))


def seconds(solve: Callable[[], object]) -> float:
    start = time.process_time()
    solve()
    return time.process_time() - start


def measure(case: Case) -> Row:
    arguments = case.errors, case.costs, case.budget_s, BUCKETS
    pairs = [
        (seconds(lambda: solve_budget(*arguments)), seconds(lambda: bucket_dp(*arguments))) for _ in range(REPEATS)
    ]
    solve_cpu_s, bucket_dp_cpu_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    solution = solve_budget(*arguments)
    optimum = milp_optimum(case.errors, case.costs, case.budget_s)
    return Row(
        case=case.name,
        units=len(case.costs),
        solve_cpu_s=solve_cpu_s,
        bucket_dp_cpu_s=bucket_dp_cpu_s,
        times_faster=statistics.median(other / ours for ours, other in pairs),
        optimum=optimum,
        gap=solution.error / optimum - 1,
        bucket_dp_gap=bucket_dp(*arguments) / optimum - 1,
        cost_over_budget=solution.cost / case.budget_s,
    )


def main() -> None:
    data = os.environ.get("SPDY_DATA")
    if not data:
        raise SystemExit("SPDY_DATA is not set: the SPDY authors' timing files are needed")
    rows = [measure(case) for case in cases(Path(data))]
    print(f"{'case':34} {'ours ms':>8} {'bucket DP ms':>13} {'faster':>8} {'our gap':>9} {'its gap':>9}")
    for row in rows:
        print(
            f"{row.case:34} {row.solve_cpu_s * 1e3:8.2f} {row.bucket_dp_cpu_s * 1e3:13.1f} {row.times_faster:7.1f}x "
            f"{row.gap:9.4%} {row.bucket_dp_gap:9.4%}"
        )
    result = {
        "command": "python -m benchmarks.budget_dp",
        "buckets": BUCKETS,
        "repeats": REPEATS,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        "rows": [asdict(row) for row in rows],
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
