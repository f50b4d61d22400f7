"""`--runtime auto`: what every installed runtime can offer, and which offer is taken.

At the requested speedup the offer nearest to the dense network; with an accuracy floor the fastest one that holds it.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from calibration.errors import DataError
from pipeline.backends.sharing import share
from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.context import Run
from pipeline.execution import execute
from pipeline.planning.floors import has_floor, holds_floor
from pipeline.planning.frontier import predicted_plans
from pipeline.releases.bundle import copy_bundle
from pipeline.run_folder import RunFolder, digest, file_digest, read_json, write_json
from pipeline.setup import choose_candidates, open_folder, prepare
from pipeline.training.recovery import shipped_accuracy
from profilers.latency_table import LatencyTable
from targets.errors import AccuracyError, ConfigError, SpeedupError, UserError
from targets.target import load_target

FASTER = "faster.json"
STEPS = 5
"""Speedups that are tried beyond the request, where a floor leaves room."""
LEAST_STEP = 1.08
"""A plan that is faster by less is not worth another search."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The best plan on one runtime, or why there is none.

    Args:
        latency_s: of the plan, by the dense network's latency and the measured speedup.
        loss: against the dense network's outputs, on calibration samples that the correction did not learn from; what
            the runtimes are compared by, since the test data decide nothing.
        accuracy: on the held-out split, for people to see.
        holds: whether that is as much as was asked for.
        folder: name of its run folder in ``runtimes/``.
        error: why there is no plan.
        exit_code: that goes with it.
    """

    folder: str
    runtime: str
    families: tuple[str, ...]
    licence_note: str
    predicted_speedup: float | None = None
    measured_speedup: float | None = None
    latency_s: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    holds: bool = False
    error: str | None = None
    exit_code: int | None = None


def run_on_best(
    config: RunConfig, folder: RunFolder, reporter: Reporter, last: str, again: bool
) -> tuple[Run, dict[str, Any]]:
    """Find a plan on every runtime in a run folder of its own, take the best one's and go on with it to ``last``.

    The choice is kept in ``choice.json``, and the bundle lies in ``folder`` as it does without a choice.

    Raises:
        ConfigError: settings that hold for a single runtime.
        SpeedupError: no runtime reaches the request; says what binds each.
    """
    if config.latency_table:
        raise ConfigError("A --latency-table is one runtime's: name that --runtime instead of auto.")
    target = load_target(
        config.target, batch_size=config.batch_size, threads=config.threads, precedence=config.precedence
    )
    runs = {
        info.name: prepare(
            config.model_copy(update={"runtime": info.name}), RunFolder(folder.file("runtimes") / info.name), reporter
        )
        for info in choose_candidates(target, config, reporter)
    }
    bases = dict(runs)
    next(iter(runs.values())).check_inputs()  # before the folder is this configuration's
    folder.open(config.model_dump(mode="json"), {"command": sys.argv})
    offers: list[Offer] = []
    earlier: list[RunFolder] = []
    for name, run in runs.items():
        reporter.say(f"what {name} can offer:")
        open_folder(run)
        for other in earlier:
            share(run.folder, other, ["dense", "calibrate", "database"])
        earlier.append(run.folder)
        offer = _offer(run)
        if has_floor(config) and offer.holds:
            runs[name], offer = _faster(run, offer)
        offers.append(offer)
    best = _best(offers, has_floor(config))
    write_json(
        folder.file("choice.json"),
        {"schema": 1, "taken": best.runtime if best else None, "offers": [asdict(offer) for offer in offers]},
    )
    reporter.table(_table(offers, best))
    if best is None:
        reasons = "\n".join(f"{offer.runtime}: {offer.error}" for offer in offers)
        failure = SpeedupError(f"No installed runtime reaches {config.speedup:g}x.\n{reasons}")
        codes = {offer.exit_code or SpeedupError.exit_code for offer in offers}
        if len(codes) == 1:  # all for one reason, such as broken data
            failure.exit_code = codes.pop()
        raise failure
    why = "the fastest that holds the floor" if has_floor(config) and best.holds else "the nearest to the dense network"
    reporter.say(f"taking {best.runtime}: its plan is {why}")
    run, result = _executed(runs[best.runtime], bases[best.runtime], last, again)
    if "bundle" in result:  # where those who take it from here look for it
        copy_bundle(Path(result["bundle"]), folder.file("bundle"))
        result["bundle"] = str(folder.file("bundle"))
    return run, result


def _executed(run: Run, base: Run, last: str, again: bool) -> tuple[Run, dict[str, Any]]:
    """The rest of a run for more than was asked, or, where its certificate does not hold that, of the one as asked.

    The fastest plan that holds a floor lies at its edge: the runtime's rounding of a few samples can decide.
    """
    if run is base:
        return run, execute(run, last, again)
    try:
        result = execute(run, last, again)
        if result["exit_code"] == 0:
            return run, result
        reason = result["status"]
    except AccuracyError as error:
        reason = str(error).splitlines()[0]
    base.reporter.say(f"{run.config.speedup:g}x: {reason}. Going on with {base.config.speedup:g}x, as asked")
    return base, execute(base, last, again)


def _best(offers: Sequence[Offer], by_speed: bool) -> Offer | None:
    """The fastest offer that holds the floor; where there is no floor or none holds it, that with the lowest loss.

    Offers whose loss nobody asked for, of allocators that evaluate nothing, are compared by latency.
    """
    possible = [offer for offer in offers if offer.latency_s is not None]
    holding = [offer for offer in possible if by_speed and offer.holds]
    if holding:
        return min(holding, key=lambda offer: offer.latency_s or 0.0)
    return min(possible, key=lambda offer: (offer.loss is None, offer.loss, offer.latency_s), default=None)


def _offer(run: Run) -> Offer:
    (info,) = run.candidates
    known = (run.folder.path.name, info.name, info.families, info.licence_note)
    try:
        execute(run, "prune")
    except (UserError, DataError) as error:  # another runtime may do without what this one lacks
        return Offer(*known, error=str(error), exit_code=error.exit_code)
    plan, correction = (read_json(run.folder.file(name)) for name in ("plan.json", "correction.json"))
    accuracy = shipped_accuracy(run)
    table = LatencyTable.load(run.folder.file("latency_table.json"))
    return Offer(
        *known,
        predicted_speedup=plan["predicted_speedup"],
        measured_speedup=plan["measured_speedup"],
        latency_s=table.dense_s / plan["measured_speedup"],
        loss=correction.get("loss_after" if correction.get("kept") else "loss_before", plan["loss"]),
        accuracy=accuracy,
        holds=holds_floor(run, accuracy),
    )


def _faster(run: Run, offer: Offer) -> tuple[Run, Offer]:
    """The fastest plan that holds the floor, as a run of its own; what there was, if there is none.

    Floors are judged on the held-out split, as certificates judge them.
    """
    path, config = run.folder.file(FASTER), run.config
    key = digest("faster", file_digest(run.folder.file("plan.json")), config.min_accuracy, config.max_drop)
    run.folder.stage("faster", key, [path.name], lambda: write_json(path, {"schema": 1, "rows": _holding(run)}))
    for row in reversed(read_json(path)["rows"]):
        speedup = round(row["speedup"] * config.speedup / run.goal, 2)  # over what the request is over
        run.reporter.say(f"{run.target.runtime}: about {speedup:g}x should hold the floor")
        folder = RunFolder(run.folder.path.with_name(f"{run.folder.path.name}-{speedup:g}x"))
        faster = prepare(run.config.model_copy(update={"speedup": speedup}), folder, run.reporter)
        open_folder(faster)
        share(folder, run.folder, ["probe", "dense", "calibrate", "database"])
        found = _offer(faster)
        if found.holds:
            return faster, found
    return run, offer


def _holding(run: Run) -> list[dict[str, Any]]:
    """Plans at rising speedups beyond the request, up to the last one whose accuracy holds the floor."""
    table = LatencyTable.load(run.folder.file("latency_table.json"))
    fastest = max(1 / plan.relative for plan in table.measurements)
    rows: list[dict[str, Any]] = []
    for speedup in np.geomspace(LEAST_STEP * run.goal, fastest, STEPS) if fastest > LEAST_STEP * run.goal else ():
        found = predicted_plans(run, [float(speedup)])
        if not all(holds_floor(run, row["accuracy"]) for row in found):
            break
        rows += found
    return rows


def _table(offers: Sequence[Offer], best: Offer | None) -> Table:
    table = Table("runtime", "families", "predicted", "measured", "ms", "loss", "accuracy", "licence", "")

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    for offer in offers:
        figures = (
            shown(offer.predicted_speedup, ".2f"),
            shown(offer.measured_speedup, ".2f"),
            shown(offer.latency_s and 1e3 * offer.latency_s, ".3g"),
            shown(offer.loss, ".4f"),
            shown(offer.accuracy, ".2%"),
        )
        note = "taken" if offer is best else (offer.error or "").split("\n")[0]
        table.add_row(offer.runtime, ", ".join(offer.families) or "-", *figures, offer.licence_note, note)
    return table
