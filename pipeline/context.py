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

from calibration.calibration_set import CalibrationSet, draw_calibration_set
from calibration.datasets import Splits
from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.export import PlanPatcher, export_onnx
from pipeline.models.base import Feeds, ModelAdapter, Predict, Unit
from pipeline.models.inference import torch_predict
from pipeline.models.registry import get_adapter
from pipeline.run_folder import RunFolder, digest, file_digest, read_json, write_json
from pipeline.tracking.events import Tracker
from pipeline.workers import Workers
from profilers.latency_table import TableUnit
from profilers.measure import Bench, Candidate, save_feeds
from profilers.probe import Capability, RuntimeCapability
from targets.errors import ArtifactError, SpeedupError
from targets.host import HostFingerprint
from targets.levels import Level, sparsity_grid
from targets.registry import RuntimeInfo
from targets.target import Target

DEFAULT_MODEL = "resnet:digits"


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

    def choose_runtime(self, capability: Capability) -> None:
        """Take the runtime that was asked for, else the one that promises the most."""
        asked = self.target.runtime
        self.capability = capability.of(asked) if asked else capability.best()
        self.runtime = next(info for info in self.candidates if info.name == self.capability.name)
        promise = f"{self.capability.promise:.2f}x at 90% to 99% sparsity in the probe"
        why = "asked for" if asked else f"promises the most of {', '.join(info.name for info in self.candidates)}"
        self.reporter.say(
            f"runtime {self.runtime.name} {self.runtime.version} ({why}: {promise}), {self.target.threads} threads, "
            f"batch {self.target.batch_size}"
        )

    def require_gain(self) -> None:
        """Stop where no level can buy time.

        Raises:
            SpeedupError: the runtime gains nothing from the families that it has.
        """
        assert self.capability is not None, "the probe stage comes first"
        if not self.capability.gains:
            raise SpeedupError(
                f"{self.config.speedup:g}x is unreachable on {self.capability.name}: at 90% to 99% zeros the probe ran "
                f"{self.capability.promise:.2f}x as fast as dense, so that {self.capability.promise:.2f}x is the most "
                "that unstructured sparsity can give here.\nChoose a runtime that gains from zeros (`pipeline runtimes "
                "install deepsparse`, then --runtime deepsparse), or look at `pipeline probe`."
            )

    @cached_property
    def adapter(self) -> ModelAdapter:
        """The model family."""
        return get_adapter(self.config.model or DEFAULT_MODEL)

    @cached_property
    def splits(self) -> Splits:
        """The data."""
        return self.adapter.load_data(self.config.data, self.config.weights, self.target.input_size)

    @cached_property
    def dense(self) -> nn.Module:
        """The dense network in eval mode; never changed."""
        return self.adapter.load(self.config.weights, self.splits)

    def copy_of_dense(self) -> nn.Module:
        """A network of its own with the dense weights."""
        return copy.deepcopy(self.dense)

    @cached_property
    def units(self) -> list[Unit]:
        """Every unit in execution order."""
        return self.adapter.units(self.dense, torch.from_numpy(self.splits.train.inputs(np.arange(1))))

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Levels of every prunable unit, dense first."""
        return sparsity_grid(count=self.config.levels - 1)

    @cached_property
    def table_units(self) -> tuple[TableUnit, ...]:
        """The units as the latency table sees them."""
        return tuple(TableUnit(u.name, u.latency_group, u.macs, u.prunable) for u in self.units)

    @cached_property
    def calibration(self) -> CalibrationSet:
        """Which training samples calibrate."""
        return draw_calibration_set(self.splits, self.config.calibration_samples, self.config.seed)

    @cached_property
    def calibration_inputs(self) -> NDArray[Any]:
        """[n, …] inputs of the calibration set, shuffled: data sets come class by class, batches must not."""
        order = np.random.default_rng(self.config.seed).permutation(len(self.calibration.indices))
        return self.calibration.inputs(self.splits.train)[order]

    @cached_property
    def model_key(self) -> str:
        """Digest of the dense network's weights and of the data's name and shape."""
        state = {name: _tensor_digest(value) for name, value in self.dense.state_dict().items()}
        return digest(self.adapter.name, state, self.splits.train.input_shape)

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
        rows = np.arange(self.target.batch_size) % len(self.calibration_inputs)
        return self.adapter.feeds(self.calibration_inputs[rows])

    def predict(self, network: nn.Module) -> Predict:
        """A network in its deployed form, in torch."""
        adapter = self.adapter
        return torch_predict(adapter.deployed(network), adapter.feeds, adapter.recipe.inference_batch)

    @cached_property
    def patcher(self) -> PlanPatcher:
        """Writes plans into the dense network's file."""
        return PlanPatcher(self.dense_onnx, self.units)

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
        _ = self.dense, self.calibration

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

    def aim(self) -> float:
        """The speedup that the search aims at: the request, or more once a certificate fell short of it."""
        path = self.folder.file("aim.json")
        return float(read_json(path)["speedup"]) if path.exists() else self.config.speedup

    def set_aim(self, speedup: float) -> None:
        """Aim at another speedup from now on."""
        write_json(self.folder.file("aim.json"), {"schema": 1, "speedup": speedup})

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
