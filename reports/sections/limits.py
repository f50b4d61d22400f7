"""What limits the speedup: the request, what the latency table says can be reached, and what binds it."""

from reports.formatting import milliseconds, percent, speedup
from reports.records import Run
from reports.samples import ratio, total


def asked_speedup(run: Run) -> float | None:
    """The requested speedup over dense in fp32 on the run's runtime, from whichever file says it."""
    known = run.certificate.requested_speedup or run.plan.requested_speedup or run.baseline.speedup
    return known or _typed_speedup(run)


def typed(run: Run, value: float) -> float:
    """What to type for --speedup to ask for a speedup over dense in fp32 on the run's runtime.

    The same, unless requests are over the best dense network.
    """
    asked = _typed_speedup(run)
    return value * asked / run.baseline.speedup if asked and run.baseline.speedup else value


def _typed_speedup(run: Run) -> float | None:
    configured = run.run.config.get("speedup")
    return float(configured) if isinstance(configured, int | float) else None


def fastest_speedup(run: Run) -> float | None:
    """The fastest plan of the latency table, predicted with every unit at its fastest level or measured."""
    table = run.latency_table
    measured = [ratio(table.dense_s, measurement.measured_s) for measurement in table.measurements]
    known = [value for value in (ratio(table.dense_s, _floor_s(run)), *measured) if value is not None]
    return max(known, default=None)


def out_of_reach(run: Run) -> bool:
    """Whether the run ended because no plan can be as fast as it was asked for."""
    asked, fastest = asked_speedup(run), fastest_speedup(run)
    return run.certificate.status is None and asked is not None and fastest is not None and fastest < asked


def gains_nowhere(run: Run) -> bool:
    """Whether the probe found no runtime that gains from zeros."""
    runtimes = run.capability.runtimes
    return bool(runtimes) and all(runtime.gains is False for runtime in runtimes)


def holds_request(run: Run) -> bool:
    """Whether the interval of the measured speedup has the request inside."""
    certificate = run.certificate
    bounds = (certificate.ci_low, certificate.requested_speedup, certificate.ci_high)
    return all(bound is not None for bound in bounds) and sorted(bounds, key=lambda b: b or 0.0) == list(bounds)


def what_binds(run: Run) -> str:
    """Which part of the time no level can take away, as far as the latency table and the plan say."""
    table = run.latency_table
    kept = [unit for unit in run.plan.units if not unit.prunable]
    names = ", ".join(unit.name for unit in kept)
    kept_s = total([unit.dense_s for unit in kept])
    parts = []
    if table.fixed_s is not None:
        of_all = ratio(table.fixed_s, run.certificate.compressed.latency_s)
        share = f", {percent(of_all, 0)} of the compressed latency" if of_all is not None else ""
        among = f", the units kept dense ({names}) included" if kept and kept_s is None else ""
        parts.append(f"No level changes a fixed {milliseconds(table.fixed_s)} ms{share}{among}.")
    if kept_s is not None:
        parts.append(f"Units kept dense ({names}) take {milliseconds(kept_s)} ms.")
    if (best := ratio(table.dense_s, _floor_s(run))) is not None:
        parts.append(f"With every other unit at its fastest level, the latency table predicts {speedup(best)}.")
    return " ".join(parts) or "The run has no latency table that would say what binds."


def _floor_s(run: Run) -> float | None:
    """Predicted seconds with every unit that may be compressed at its fastest level."""
    table, units = run.latency_table, run.plan.units
    fastest = [min(known) if (known := [s for s in row if s is not None]) else None for row in table.seconds]
    if len(units) == len(fastest):
        # Units kept dense have their own time, or are part of the fixed time and cost nothing here.
        fastest = [
            unit.dense_s if not unit.prunable and unit.dense_s is not None else best
            for unit, best in zip(units, fastest, strict=True)
        ]
    return total([table.fixed_s, *fastest]) if fastest else None
