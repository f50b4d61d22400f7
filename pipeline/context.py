"""One run's things: configuration, folder, target, network and data, each made when it is first asked for."""

import copy
import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from calibration.calibration_set import (
    CalibrationSamples,
    CalibrationSet,
    content_digest,
    draw_calibration_set,
    draw_others,
)
from calibration.datasets import Splits
from pipeline.backends.launcher import find_launcher
from pipeline.backends.workers import Workers
from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.exporting.export import PlanPatcher, export_onnx
from pipeline.families.base import Methods
from pipeline.families.choice import chosen_families, named_families
from pipeline.families.int8 import PRECISION, Ranges
from pipeline.families.ranges import largest_weight, measure_ranges, ranges_from_json, ranges_to_json
from pipeline.families.registry import all_levels, levels_of, units_of
from pipeline.models.base import Feeds, ModelAdapter, Predict, Unit
from pipeline.models.dry_run import called, check_data, try_out, try_training
from pipeline.models.inference import torch_predict
from pipeline.models.registry import get_adapter
from pipeline.planning.aims import Aims
from pipeline.planning.promises import promised
from pipeline.run_folder import RunFolder, digest, file_digest, read_json, write_json
from pipeline.scoring.registry import scorer_of
from pipeline.tracking.events import Tracker
from profilers.latency_table import LatencyTable, TableUnit
from profilers.measure import Bench, Candidate, save_feeds
from profilers.probe import GAINS_FROM, Capability, RuntimeCapability
from targets.errors import ArtifactError, ConfigError
from targets.host import HostFingerprint
from targets.levels import Level
from targets.registry import RuntimeInfo
from targets.target import Target

DEFAULT_MODEL = "resnet:digits"
BASELINE = "baseline.json"
FEWEST_SAMPLES = 4
"""Of a calibration set: the correction judges itself on samples that it did not learn from."""
RANGE_SAMPLES = 256
"""Calibration samples that the ranges of activations are taken from."""


@dataclass
class Run:
    """What the stages share."""

    config: RunConfig
    folder: RunFolder
    target: Target
    host: HostFingerprint
    proxy: bool
    reporter: Reporter
    candidates: tuple[RuntimeInfo, ...]
    tracker: Tracker
    workers: Workers = field(default_factory=Workers)
    carried: bool = False
    """Whether the latency table is another host's, so that only that host can say whether its plan holds."""
    runtime: RuntimeInfo | None = None
    capability: RuntimeCapability | None = None
    failed_before: set[str] | None = None
    """Rows in the log of measurements that failed before this command; None until that was looked up."""

    def choose_runtime(self, capability: Capability) -> None:
        """Take the runtime that was asked for, else the one that promises the most."""
        asked = self.target.runtime
        families = named_families(self.config.families) if self.config.families else None
        self.capability = capability.of(asked) if asked else capability.best(families)
        self.runtime = next(info for info in self.candidates if info.name == self.capability.name)
        promise, by_zeros = f"{promised(self.capability)} in the probe", self.capability.promise >= GAINS_FROM
        names = ", ".join(info.name for info in self.candidates)
        why = "asked for" if asked else f"{'gains the most from zeros' if by_zeros else 'promises the most'} of {names}"
        self.reporter.say(
            f"runtime {self.runtime.name} {self.runtime.version} ({why}: {promise}), {self.target.threads} threads, "
            f"batch {self.target.batch_size}"
        )

    @cached_property
    def adapter(self) -> ModelAdapter:
        """The model family."""
        return get_adapter(self.config.model or DEFAULT_MODEL)

    @cached_property
    def splits(self) -> Splits:
        """The data."""
        given = (self.config.data, self.config.weights, self.target.input_size)
        return called(self.adapter, "load_data() fails", self.adapter.load_data, *given)

    @cached_property
    def dense(self) -> nn.Module:
        """The dense network in eval mode; never changed."""
        return called(self.adapter, "load() fails", self.adapter.load, self.config.weights, self.splits)

    @cached_property
    def dense_accuracy(self) -> float:
        """The metric of the dense network on the held-out split."""
        return self.adapter.evaluate(self.predict(self.dense), self.splits).value

    @cached_property
    def held_out_key(self) -> str:
        """Digest of the data that accuracies are of."""
        return content_digest(self.splits.test)

    def copy_of_dense(self) -> nn.Module:
        """A network of its own with the dense weights."""
        return copy.deepcopy(self.dense)

    @cached_property
    def families(self) -> tuple[str, ...]:
        """Families that plans may use: those asked for, else all that the runtime gains from in the probe."""
        assert self.runtime is not None, "the probe stage chooses the runtime"
        gaining = self.capability.gaining if self.capability else ()
        if self.config.families is None:
            return gaining or self.runtime.families
        return chosen_families(self.config.families, self.runtime)

    @property
    def only_unstructured(self) -> bool:
        """Whether all units have the same levels, in the order of their errors."""
        return self.families == ("unstructured",)

    @cached_property
    def units(self) -> list[Unit]:
        """Every unit in execution order."""
        layers = self.adapter.units(self.dense, torch.from_numpy(self.splits.train.inputs(np.arange(1))))
        return units_of(layers, self.adapter.widths(self.dense), self.families)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Levels of all units together, dense first."""
        return all_levels(self.units, self.families, self.config.levels)

    def levels_of(self, unit: Unit) -> tuple[Level, ...]:
        """The levels of one unit, dense first."""
        return levels_of(unit, self.families, self.config.levels)

    @cached_property
    def table_units(self) -> tuple[TableUnit, ...]:
        """The units as the latency table sees them."""
        position = {level: index for index, level in enumerate(self.levels)}

        def own(unit: Unit) -> tuple[int, ...]:
            return () if self.only_unstructured else tuple(position[level] for level in self.levels_of(unit))

        return tuple(TableUnit(u.name, u.latency_group, u.macs, u.prunable, own(u)) for u in self.units)

    @cached_property
    def calibration(self) -> CalibrationSet:
        """Which training samples calibrate."""
        return draw_calibration_set(self.splits, self.config.calibration_samples, self.config.seed)

    @cached_property
    def calibration_samples(self) -> CalibrationSamples:
        """Inputs of the calibration set, shuffled: data sets come class by class, batches must not."""
        order = np.random.default_rng(self.config.seed).permutation(len(self.calibration.indices))
        return self.calibration.samples(self.splits.train, order)

    @property
    def calibration_inputs(self) -> NDArray[Any]:
        """[n, …] all of them in memory: what takes them batch by batch should ask for `calibration_samples`."""
        return self.calibration_samples[:]

    def judging_samples(self, count: int) -> CalibrationSamples:
        """Up to ``count`` training samples that nothing learns from but training itself."""
        return CalibrationSamples(self.splits.train, draw_others(self.splits, self.calibration, count))

    @cached_property
    def model_key(self) -> str:
        """Digest of the dense network's weights and of the data's name and shape."""
        state = {name: _tensor_digest(value) for name, value in self.dense.state_dict().items()}
        return digest(self.adapter.name, state, self.splits.train.input_shape)

    @cached_property
    def units_key(self) -> str:
        """Digest of what plans are made of: the units as their adapter and the families have them, and their levels."""
        return digest([repr(unit) for unit in self.units], [level.key for level in self.levels])

    @property
    def methods(self) -> Methods:
        """What makes the levels."""
        config = self.config
        return Methods(config.criterion, config.channel_criterion, config.solver, self.largest_weight)

    @property
    def largest_weight(self) -> int:
        """Steps of a weight in int8: what every CPU multiplies without overflow where the plan is for another host."""
        return largest_weight(() if self.carried else self.host.isa)

    @cached_property
    def database_key(self) -> str:
        """Digest of what the database depends on."""
        config = self.config
        made = [config.criterion, config.solver] if self.only_unstructured else [self.families, self.methods.names]
        return digest("database", self.model_key, self.units_key, self.calibration.sha256, *made)

    @cached_property
    def dense_onnx(self) -> Path:
        """The dense network as every runtime loads it."""
        path = self.folder.file("dense.onnx")

        def export() -> None:
            export_onnx(self.adapter.deployed(self.dense), self.example, path)

        self.folder.stage("dense", digest(self.model_key, self.target.batch_size), [path.name], export)
        return path

    @cached_property
    def example(self) -> Feeds:
        """One batch of calibration samples as the deployed network takes them."""
        rows = np.arange(self.target.batch_size) % len(self.calibration_samples)
        return self.adapter.feeds(self.calibration_samples[rows])

    def predict(self, network: nn.Module) -> Predict:
        """A network in its deployed form, in torch."""
        adapter = self.adapter
        return torch_predict(adapter.deployed(network), adapter.feeds, adapter.recipe.inference_batch)

    @cached_property
    def patcher(self) -> PlanPatcher:
        """Writes plans into the dense network's file."""
        return PlanPatcher(self.dense_onnx, self.units, self.ranges)

    @cached_property
    def ranges(self) -> Ranges | None:
        """What int8 needs to know of every layer, None where no plan may have it; kept in the run folder."""
        if PRECISION not in self.families:
            return None
        path, size = self.folder.file("ranges.json"), self.target.batch_size
        inputs = self.calibration_samples[:RANGE_SAMPLES]
        rows = np.resize(np.arange(len(inputs)), -(-len(inputs) // size) * size).reshape(-1, size)
        layers = [layer.name for unit in self.units for layer in unit.layers]
        largest = self.largest_weight

        def work() -> None:
            batches = (self.adapter.feeds(inputs[batch]) for batch in rows)
            write_json(path, ranges_to_json(measure_ranges(self.dense_onnx, layers, batches, largest)))

        key = digest("ranges", self.model_key, self.calibration.sha256, size, layers, largest)
        self.folder.stage("ranges", key, [path.name], work)
        return ranges_from_json(read_json(path))

    @cached_property
    def bench_inputs(self) -> Path:
        """One batch of inputs for measurements, real ones since zeros in activations may matter."""
        path = self.folder.file("bench_inputs.npz")
        save_feeds(path, self.example)
        return path

    @cached_property
    def bench(self) -> Bench:
        """Where this run measures; it remembers how near each other the cores can be."""
        assert self.runtime is not None, "the probe stage chooses the runtime"
        return Bench(self.runtime, replace(self.target, runtime=self.runtime.name), self.bench_inputs)

    @property
    def dense_candidate(self) -> Candidate:
        """The baseline of every measurement."""
        return Candidate("dense", self.dense_onnx)

    def plan_of(self, choice: tuple[int, ...]) -> dict[str, Level]:
        """Unit → level."""
        return {unit.name: self.levels[index] for unit, index in zip(self.units, choice, strict=True)}

    def check_inputs(self) -> None:
        """Load what the user gave, so that a mistake in it shows before anything is measured."""
        check_data(self.adapter, self.splits)
        _ = self.dense
        if len(self.calibration.indices) < FEWEST_SAMPLES:
            raise ConfigError(
                f"The data '{self.splits.name}' has {len(self.calibration.indices)} training samples; calibration "
                f"needs at least {FEWEST_SAMPLES}. Give more --data."
            )
        few = np.arange(min(2, len(self.splits.train)))
        try_out(self.adapter, self.dense, self.splits.train.inputs(few))
        if self.config.epochs:
            try_training(self.adapter, self.dense, self.splits.train.batch(few, np.random.default_rng(0)))
        if self.config.ship_sample:
            scorer_of(self.adapter.task)
        if self.config.launcher:
            find_launcher(self.config.launcher)
        if table := self.config.latency_table:
            if not table.is_file():
                raise ConfigError(
                    f"There is no latency table {table}. `pipeline profile FOLDER --export FILE` writes one."
                )
            LatencyTable.load(table)
        floor = self.config.min_accuracy
        if floor is not None and 100 * self.dense_accuracy < floor:
            raise ConfigError(
                f"--min-accuracy {floor:g} is above the dense network's {self.adapter.metric}, "
                f"{self.dense_accuracy:.2%}. Ask for less than that, or give better --weights."
            )

    def network(self, checkpoint: Path) -> nn.Module:
        """The network with the weights of a checkpoint of this run, in eval mode.

        Raises:
            ArtifactError: the checkpoint is broken or of another network.
        """
        try:
            network = self.copy_of_dense()
            network.load_state_dict(load_file(checkpoint))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ArtifactError(
                f"Cannot load {checkpoint}: {error}. Delete it and run the prune stage again."
            ) from None
        return network.eval()

    @property
    def goal(self) -> float:
        """What is certified: the speedup over dense in fp32 on the same runtime that the request comes to."""
        if self.config.baseline == "dense":
            return self.config.speedup
        return float(read_json(self.folder.file(BASELINE))["speedup"])

    @property
    def aims(self) -> Aims:
        """What the search aims at, for the goal on this host with this network."""
        key = digest("aim", self.host_key, self.model_key, self.units_key, self.goal)
        return Aims(self.folder.file("aim.json"), key, self.goal)

    def table_key(self) -> str:
        """Digest of the latency table's file."""
        return file_digest(self.folder.file("latency_table.json"))

    @cached_property
    def host_key(self) -> str:
        """Digest of host, runtime and how it is run: latencies of another key are not comparable."""
        assert self.runtime is not None
        return digest(
            self.host.id, self.runtime.name, self.runtime.version, self.target.threads, self.target.batch_size
        )


def _tensor_digest(value: torch.Tensor) -> str:
    return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
