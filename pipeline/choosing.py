"""`--runtime auto`: what every installed runtime can offer at the requested speedup, and which offer is taken."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.context import Run
from pipeline.execution import execute
from pipeline.run_folder import RunFolder, read_json, write_json
from pipeline.setup import choose_candidates, prepare
from targets.errors import RuntimeMissingError, SpeedupError
from targets.target import load_target


@dataclass(frozen=True, slots=True)
class Offer:
    """The best plan on one runtime, or why there is none.

    Args:
        loss: against the dense network's outputs, on calibration samples that the correction did not learn from; what
            the runtimes are compared by, since the test data decide nothing.
        accuracy: on the held-out split, for people to see.
    """

    runtime: str
    families: tuple[str, ...]
    licence_note: str
    predicted_speedup: float | None = None
    measured_speedup: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    error: str | None = None


def run_on_best(
    config: RunConfig, folder: RunFolder, reporter: Reporter, last: str, again: bool
) -> tuple[Run, dict[str, Any]]:
    """Find a plan on every runtime in a run folder of its own, take the best one's and go on with it to ``last``.

    The choice is kept in ``choice.json``.

    Raises:
        SpeedupError: no runtime reaches the request; says what binds each.
    """
    target = load_target(config.target, batch_size=config.batch_size, threads=config.threads)
    folder.open(config.model_dump(mode="json"), {"command": sys.argv})
    offers, runs = [], {}
    for info in choose_candidates(target, config.install, reporter):
        reporter.say(f"what {info.name} can offer:")
        own = config.model_copy(update={"runtime": info.name})
        run = runs[info.name] = prepare(own, RunFolder(folder.file("runtimes") / info.name), reporter)
        offers.append(_offer(run))
    possible = [offer for offer in offers if offer.loss is not None]
    best = min(possible, key=lambda offer: offer.loss or 0.0, default=None)
    write_json(
        folder.file("choice.json"),
        {"schema": 1, "taken": best.runtime if best else None, "offers": [asdict(offer) for offer in offers]},
    )
    reporter.table(_table(offers, best))
    if best is None:
        reasons = "\n".join(f"{offer.runtime}: {offer.error}" for offer in offers)
        raise SpeedupError(f"No installed runtime reaches {config.speedup:g}x.\n{reasons}")
    reporter.say(f"taking {best.runtime}: its plan is the nearest to the dense network")
    run = runs[best.runtime]
    return run, execute(run, last, again)


def _offer(run: Run) -> Offer:
    (info,) = run.candidates
    known = (info.name, info.families, info.licence_note)
    try:
        execute(run, "prune")
    except (SpeedupError, RuntimeMissingError) as error:
        return Offer(*known, error=str(error))
    plan, correction = (read_json(run.folder.file(name)) for name in ("plan.json", "correction.json"))
    loss = correction.get("loss_after", plan["loss"])
    return Offer(*known, plan["predicted_speedup"], plan["measured_speedup"], loss, correction["accuracy"])


def _table(offers: Sequence[Offer], best: Offer | None) -> Table:
    table = Table("runtime", "families", "predicted", "measured", "loss", "accuracy", "licence", "")

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    for offer in offers:
        figures = (
            shown(offer.predicted_speedup, ".2f"),
            shown(offer.measured_speedup, ".2f"),
            shown(offer.loss, ".4f"),
            shown(offer.accuracy, ".2%"),
        )
        note = "taken" if offer is best else (offer.error or "").split("\n")[0]
        table.add_row(offer.runtime, ", ".join(offer.families) or "-", *figures, offer.licence_note, note)
    return table
