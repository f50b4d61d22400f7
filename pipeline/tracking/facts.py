"""What a finished stage has to tell, read from the files that it wrote.

Files rather than memory: a stage that was found done tells the same as one that has just run, so that a resumed run is
tracked as a whole. What a stage told while it worked has the same names and values here, and is not told twice.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.run_folder import file_digest, read_json
from pipeline.tracking.events import Fact

NETWORKS = ("baseline", "compressed", "best_dense")
"""Of a certificate, those whose latency is told."""


def stage_facts(folder: Path, stage: str) -> Iterator[Fact]:
    """Everything that is known once ``stage`` is done.

    Raises:
        ArtifactError: a file of the stage is broken.
    """
    for name, seconds in read_json(folder / "run.json")["stage_seconds"].items():
        yield Fact("metric", f"stage_seconds/{name}", seconds)
    if stage in _READERS:
        yield from _READERS[stage](folder)


def search_facts(evaluation: int, incumbent: float) -> Iterator[Fact]:
    """The best loss so far, after so many evaluations."""
    return _numbers("search", {"incumbent_loss": incumbent}, evaluation)


def correction_facts(step: int, loss: float, block_error: float) -> Iterator[Fact]:
    """One pass of output matching."""
    return _numbers("correction", {"loss": loss, "block_error": block_error}, step)


def training_facts(epoch: int, loss: float, accuracy: float, sparsity: float) -> Iterator[Fact]:
    """One epoch of gradual pruning, counted from 0 as its record does."""
    return _numbers("training", {"loss": loss, "accuracy": accuracy, "sparsity": sparsity}, epoch + 1)


def _numbers(group: str, values: Mapping[str, float | None], step: int = 0) -> Iterator[Fact]:
    """Those of the numbers that are there and finite: a hopeless candidate's loss is neither."""
    for name, value in values.items():
        if value is not None and math.isfinite(value):
            yield Fact("metric", f"{group}/{name}", float(value), step)


def _picked(data: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    return {name: data.get(name) for name in names}


def _probe(folder: Path) -> Iterator[Fact]:
    for runtime in read_json(folder / "capability.json")["runtimes"]:
        yield from _numbers("probe", {f"promise.{runtime['name']}": runtime["promise"]})


def _profile(folder: Path) -> Iterator[Fact]:
    table = read_json(folder / "latency_table.json")
    yield from _numbers("profile", _picked(table, ("dense_s", "fixed_s")))
    yield from _numbers("profile", {"fit_error": table["fit_error"]["median"]})


def _search(folder: Path) -> Iterator[Fact]:
    plan = read_json(folder / "plan.json")
    for evaluation, loss, incumbent, *_ in plan["search"]["trace"]:
        yield from _numbers("search", {"loss": loss}, evaluation)
        yield from search_facts(evaluation, incumbent)
    for turn in plan["rounds"]:
        yield from _numbers("round", _picked(turn, ("loss", "predicted_speedup", "measured_speedup")), turn["round"])


def _prune(folder: Path) -> Iterator[Fact]:
    correction = read_json(folder / "correction.json")
    for entry in correction["history"]:
        yield from correction_facts(entry["step"], entry["loss"], entry["block_error"])
    yield from _numbers("correction", _picked(correction, ("loss_before", "loss_after", "accuracy")))
    if (folder / "training.json").exists():
        training = read_json(folder / "training.json")
        for entry in training["history"]:
            yield from training_facts(**entry)
        yield from _numbers("training", {"final_accuracy": training["accuracy"]})


def _certify(folder: Path) -> Iterator[Fact]:
    certificate = read_json(folder / "certificate.json")
    names = ("measured_speedup", "predicted_speedup", "ci_low", "ci_high", "noise_floor", "speedup_over_best_dense")
    yield from _numbers("certificate", _picked(certificate, names))
    yield from _numbers("certificate", {f"{part}_s": certificate[part]["latency_s"] for part in NETWORKS})
    accuracy = certificate["accuracy"]
    yield from _numbers("accuracy", _picked(accuracy, ("dense", "compressed", "difference", "ci_low", "ci_high")))
    yield Fact("tag", "runtime", certificate["compressed"]["runtime"])
    yield Fact("tag", "host", certificate["host"]["model"])
    yield Fact("tag", "proxy", str(certificate["proxy"]).lower())


def _report(folder: Path) -> Iterator[Fact]:
    for name in ("report.html", "report.md", "report.json"):
        yield Fact("artifact", name, file_digest(folder / name))
    yield Fact("artifact", "bundle", file_digest(folder / "bundle" / "manifest.json"))


_READERS: dict[str, Callable[[Path], Iterator[Fact]]] = {
    "probe": _probe,
    "profile": _profile,
    "search": _search,
    "prune": _prune,
    "certify": _certify,
    "report": _report,
}
