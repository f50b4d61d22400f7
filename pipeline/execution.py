"""Running the stages, one after another, and what came of it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.certification.baseline import BEST_DENSE
from pipeline.certification.certificate import CERTIFIED, EXIT_CODES
from pipeline.certification.process_log import CERTIFYING
from pipeline.context import BASELINE, Run
from pipeline.planning.floors import is_too_low
from pipeline.planning.frontier import find_frontier
from pipeline.planning.measuring import forget_measurements, sweep
from pipeline.probing import forget_probes
from pipeline.provenance.signing import load_private_key
from pipeline.provenance.variables import SIGNING_KEY_VARIABLE
from pipeline.run_folder import read_json
from pipeline.setup import open_folder
from pipeline.stages import STAGES
from pipeline.tracking.following import follow_run, follow_stage
from pipeline.training.corrections import forget_corrections
from reports.write import write_reports
from targets.errors import AccuracyError, SpeedupError

MOST_HIGHER = 1.02
"""By how much the aim is raised at once: a wide interval is the machine's doing, and no faster plan narrows it."""


def execute(run: Run, last: str, again: bool = False) -> dict[str, Any]:
    """Run every stage up to ``last``; a certificate that fell short sends the run back to the search.

    Raises:
        SpeedupError: the request is unreachable; the report says what is reachable.
    """
    if last != "probe":
        run.check_inputs()
    if last == "report" and (key := os.environ.get(SIGNING_KEY_VARIABLE)):
        load_private_key(Path(key))  # a wrong key shows now, not after the work
    open_folder(run)
    sweep(run.folder.path)
    return follow_run(run.tracker, run.config, lambda: _run_to(run, last, again))


def _forget(run: Run, stage: str) -> None:
    """Have a stage do anew what it did."""
    run.folder.forget(stage)
    match stage:
        case "probe":
            forget_probes(run)
        case "profile" | "search":
            forget_measurements(run, stage)
            run.folder.file("plan.json").unlink(missing_ok=True)  # or a raised aim would have a search go on from it
        case "prune":
            forget_corrections(run)
        case "certify":
            run.folder.file(CERTIFYING).unlink(missing_ok=True)


def _run_to(run: Run, last: str, again: bool) -> dict[str, Any]:
    try:
        for name in STAGES:
            run.reporter.stage(name)
            if again and name == last:
                _forget(run, name)
            if _do(run, name) and name == "certify":
                _aim_again(run)
            if name == last:
                break
    except SpeedupError as error:
        write_reports(run.folder.path, run.folder.path)
        if run.config.baseline != BEST_DENSE or not run.folder.file(BASELINE).exists():
            raise
        raise SpeedupError(
            f"{error}\nThese speedups are over dense in fp32 on {run.bench.runtime.name}. The best dense network is "
            f"{run.goal / run.config.speedup:.2f} times as fast: divide them by that for --speedup."
        ) from error
    return outcome(run, last)


def _do(run: Run, name: str) -> bool | None:
    try:
        return follow_stage(run.tracker, run.folder.path, name, lambda: STAGES[name](run))
    except SpeedupError:
        if name != "search" or not run.aims.lower():
            raise
        run.reporter.warn("no plan is that much faster: the one that is there stays")
        return _do(run, name)


def _aim_again(run: Run, most: int = 2) -> None:
    """While the interval's lower end misses the request, search again for a little more.

    On a machine that is disturbed most of the time only once: for some that is how they always are.
    """
    for attempt in range(most):
        certificate = read_json(run.folder.file("certificate.json"))
        if run.carried or certificate["status"] == CERTIFIED or certificate["noise_floor"] > run.goal - 1:
            return
        if certificate["is_disturbed"] and (attempt or run.aims.current > run.goal):
            run.reporter.warn(
                f"the machine was disturbed in {certificate['disturbed_fraction']:.0%} of the rounds: nothing can be "
                f"concluded. When it is quieter: pipeline certify {run.folder.path} --again"
            )
            return
        factor = min(run.goal / certificate["ci_low"], MOST_HIGHER)
        run.reporter.say(f"the interval begins at {certificate['ci_low']:.3f}x: aiming {factor - 1:.1%} higher")
        higher = run.aims.current * factor
        run.aims.raise_to(higher)
        for name in ("search", "prune", "export", "certify"):
            _do(run, name)
        if run.aims.current != higher:  # out of reach: plan and certificate stay as they are
            return


def outcome(run: Run, last: str) -> dict[str, Any]:
    """What a script wants to know: status, exit code and where things are.

    Raises:
        AccuracyError: the certified network lost more accuracy than was allowed.
    """
    path = run.folder.file("certificate.json")
    files: dict[str, Any] = {"run_folder": str(run.folder.path)}
    if last not in ("certify", "compare", "report"):
        return {"status": "done", "exit_code": 0, "stage": last, **files}
    certificate = read_json(path)
    if last == "report":
        files |= {"bundle": str(run.folder.file("bundle")), "report": str(run.folder.file("report.html"))}
    kept = ("requested_speedup", "predicted_speedup", "measured_speedup", "ci_low", "ci_high", "proxy", "accuracy")
    found = {name: certificate[name] for name in kept} | files
    accuracy = certificate["accuracy"]
    if certificate["status"] == CERTIFIED and is_too_low(run.config, accuracy["compressed"], accuracy["dense"]):
        raise _too_much_lost(run, certificate, found)
    return {"status": certificate["status"], "exit_code": EXIT_CODES[certificate["status"]], **found}


def _too_much_lost(run: Run, certificate: Mapping[str, Any], found: Mapping[str, Any]) -> AccuracyError:
    """The error that says what was found, what was asked, and which slower plans would keep more."""
    accuracy, most, floor = certificate["accuracy"], run.config.max_drop, run.config.min_accuracy
    allowed = [f"at most {most:g} were allowed"] if most is not None else []
    allowed += [f"{floor:g}% must be held"] if floor is not None else []
    own_scale = run.config.speedup / run.goal  # what was asked for may be over a faster dense network
    slower = [row | {"speedup": row["speedup"] * own_scale} for row in find_frontier(run)]
    slower = [row for row in slower if row["speedup"] > 1]
    when = " before any epochs" if run.config.epochs else ""
    instead = "".join(f"About {row['speedup']:.2f}x would keep {row['accuracy']:.2%}{when}.\n" for row in slower)
    return AccuracyError(
        f"{certificate['measured_speedup']:.2f}x is certified, but {accuracy['metric']} fell by "
        f"{-100 * accuracy['difference']:.2f} points, from {accuracy['dense']:.2%} to {accuracy['compressed']:.2%}; "
        f"{', '.join(allowed)}.\n{instead}"
        "Ask for a lower --speedup, allow --epochs of gradual pruning, or give more --calibration-samples. "
        f"What was found is in {run.folder.path}.",
        **found,
        predicted_slower=slower,
    )
