"""A run's networks exported for another input size: a bundle's files are made for one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.context import Run
from pipeline.exporting.export import export_onnx, finish_file
from pipeline.families.int8 import Ranges
from pipeline.families.ranges import ranges_from_json
from pipeline.models.base import Feeds
from pipeline.planning.plan import load_plan
from pipeline.run_folder import RunFolder, read_json
from pipeline.serving.record import IMAGE_CLASSIFICATION
from pipeline.setup import prepare
from profilers.probe import Capability
from targets.errors import ConfigError

DENSE, COMPRESSED = "dense.onnx", "model.onnx"


def export_at(folder: Path, input_size: int, into: Path) -> Feeds:
    """Export a finished run's dense and compressed network for another input size; one batch of inputs [n, …] for them.

    Nothing is pruned or measured anew, and nothing in the run folder changes. Images to be classified are repeated or
    cut to the size: what they show does not change how long a network takes.

    Args:
        folder: of the run; its weights and data must still be where they were.
        input_size: pixels a side, or tokens, of one sample.
        into: an existing folder for `DENSE` and `COMPRESSED`.

    Raises:
        ConfigError: ``folder`` holds no run, or the model cannot take that size.
    """
    run_folder = RunFolder(folder)
    stored = run_folder.stored_config()
    if stored is None or not run_folder.file("checkpoint.safetensors").exists():
        raise ConfigError(
            f"{folder} is not a run folder: a bundle's files are made for one input size, and only its run can export "
            "others. Give the bundle inside its run folder, or make one of that size with `pipeline run --input-size`."
        )
    run, example = _run_at(run_folder, stored, input_size)
    plan, _ = load_plan(run_folder.file("plan.json"), run.units)
    network = run.network(run_folder.file("checkpoint.safetensors"))
    export_onnx(run.adapter.deployed(run.dense), example, into / DENSE)
    record = export_onnx(run.adapter.deployed(network), example, into / COMPRESSED)
    finish_file(into / COMPRESSED, record, run.units, plan, _kept_ranges(run_folder.file("ranges.json")))
    return example


def _run_at(folder: RunFolder, stored: Mapping[str, Any], input_size: int) -> tuple[Run, Feeds]:
    """The run, and one batch of inputs of another size."""
    run = _open(folder, stored)
    if run.adapter.task == IMAGE_CLASSIFICATION:  # its images have one size, which the network need not mind
        return run, {name: _resized(array, input_size) for name, array in run.example.items()}
    run = _open(folder, {**stored, "input_size": input_size})
    return run, run.example


def _open(folder: RunFolder, settings: Mapping[str, Any]) -> Run:
    run = prepare(RunConfig.model_validate({**settings, "track": None}), folder, Reporter(quiet=True))
    run.choose_runtime(Capability.load(folder.file("capability.json")))
    return run


def _resized(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Images [n, channels, height, width], repeated or cut to the size along both sides."""
    for axis in (2, 3):
        array = array.take(np.arange(size) % array.shape[axis], axis)
    return array


def _kept_ranges(path: Path) -> Ranges | None:
    """Those of the run's own size: they scale weights and activations, whose values another size hardly moves."""
    return ranges_from_json(read_json(path)) if path.exists() else None
