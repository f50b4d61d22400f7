"""Losses of candidate plans on the calibration set, without copying the network or computing anything twice."""

import hashlib
import itertools
import math
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cloudpickle
import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from calibration.batch_norm import batch_statistics
from pipeline.backends.workers import Workers
from pipeline.compression.database import Database
from pipeline.compression.stitch import Stitcher
from pipeline.families.int8 import Ranges
from pipeline.models.base import Unit
from pipeline.planning.prefix import SharedPrefix
from pipeline.run_folder import Log
from pipeline.search.losses import Plan
from targets.errors import ArtifactError, ConfigError
from targets.files import write_atomically
from targets.levels import Level

Loss = Callable[[Tensor, Tensor], Tensor]

SLIP = 0.005
"""Chance, after every batch, that a plan is given up which is no worse than the one to beat."""


@dataclass(slots=True)
class EvaluationCosts:
    """What the evaluations of a search took.

    Args:
        waited_s: seconds that the search waited for evaluations.
        plans: different plans that were looked at.
        batches_run: batches that plans saw.
        batches_whole: that they would have seen without early rejection.
        stitching_s: seconds, of all workers together, in which weights were written into the network.
        network_s: in which it ran.
        loss_s: in which its outputs were judged.
        blocks_run: blocks that ran, over all batches and plans.
        blocks_reused: blocks whose outputs were taken over from the plan before.
    """

    waited_s: float = 0.0
    plans: int = 0
    batches_run: int = 0
    batches_whole: int = 0
    stitching_s: float = 0.0
    network_s: float = 0.0
    loss_s: float = 0.0
    blocks_run: int = 0
    blocks_reused: int = 0

    def add(self, other: "EvaluationCosts") -> None:
        """Count what another part of the work took."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def to_json(self) -> dict[str, float]:
        """Everything, and the plans a second."""
        return asdict(self) | {"plans_a_second": self.plans / self.waited_s if self.waited_s else 0.0}


@dataclass(frozen=True, slots=True)
class Candidates:
    """What candidate plans are judged by; can be pickled, so that workers elsewhere can judge them.

    Args:
        network: the dense network, which plans are stitched into.
        database: folder of the database; every worker sees it under this name.
        units: unit of every position of a plan.
        levels: what a plan's positions mean.
        blocks: names of modules whose outputs plans may share.
        inputs: [n, …] calibration inputs.
        dense_outputs: [n, …] the dense network's outputs for them.
        loss: [n] losses >= 0, so that a partial sum bounds the whole from below.
        batch_size: samples at a time.
        ranges: of the layers' inputs, where plans have levels in int8.
    """

    network: nn.Module
    database: Path
    units: tuple[Unit, ...]
    levels: tuple[Level, ...]
    blocks: tuple[str, ...]
    inputs: Tensor
    dense_outputs: Tensor
    loss: Loss
    batch_size: int = 256
    ranges: Ranges | None = None

    @property
    def batch_sizes(self) -> list[int]:
        """Samples of every batch."""
        return [len(batch) for batch in self.batches(self.inputs)]

    def batches(self, samples: Tensor) -> tuple[Tensor, ...]:
        """Samples [n, …] in batches as equal as can be: batch norm has no statistics of a single sample."""
        return torch.tensor_split(samples, -(-len(samples) // self.batch_size))


class CandidateNetwork:
    """Stitches plans into the network and runs them.

    Batch norm normalises every batch with its own statistics: a cheap stand-in for the re-estimation that every
    chosen plan gets, without which the loss would judge shifted statistics rather than lost weights.
    """

    def __init__(self, candidates: Candidates) -> None:
        self._candidates, self.network = candidates, candidates.network.eval()
        database = Database(candidates.database)
        self.stitcher = Stitcher(self.network, database, units=candidates.units, ranges=candidates.ranges)
        parts = (candidates.batches(samples) for samples in (candidates.inputs, candidates.dense_outputs))
        self._batches = list(zip(*parts, strict=True))
        modules = [[layer.name for layer in unit.layers] for unit in candidates.units]
        self._prefix = SharedPrefix(self.network, candidates.blocks, modules, candidates.inputs[:1])

    def run(self, number: int, plans: Sequence[Plan]) -> tuple[list[float], EvaluationCosts]:
        """Sums of the plans' losses over one batch.

        Plans see the batch in the order of their levels: neighbours in this order begin alike, and a plan runs only
        from the first block on that differs from the plan before it.
        """
        costs, losses = EvaluationCosts(batches_run=len(plans)), {}
        with torch.no_grad(), batch_statistics(self.network):
            ordered = sorted(set(plans))
            for plan in ordered:
                losses[plan] = self._sum(number, plan, costs, more_follow=plan != ordered[-1])
        costs.blocks_run, costs.blocks_reused = self._prefix.forget()
        return [losses[plan] for plan in plans], costs

    def _sum(self, number: int, plan: Plan, costs: EvaluationCosts, more_follow: bool) -> float:
        inputs, dense_outputs = self._batches[number]
        units, levels = self._candidates.units, self._candidates.levels
        start = time.perf_counter()
        self.stitcher.apply({unit.name: levels[i] for unit, i in zip(units, plan, strict=True)})
        stitched = time.perf_counter()
        outputs = self._prefix(inputs, plan, keep=more_follow)
        ran = time.perf_counter()
        loss = float(self._candidates.loss(outputs, dense_outputs).sum())
        costs.stitching_s += stitched - start
        costs.network_s += ran - stitched
        costs.loss_s += time.perf_counter() - ran
        return loss if math.isfinite(loss) else math.inf


class CandidateLosses:
    """Mean losses of plans against the dense network's outputs; nothing is computed twice.

    Args:
        candidates: what they are judged by.
        log: losses by batch are kept there, and found again by a resumed search.
        workers: that share the work; this process alone if there are none.
        shared: a folder that workers see under the same name; needed with workers.
    """

    def __init__(
        self, candidates: Candidates, log: Log, workers: Workers | None = None, shared: Path | None = None
    ) -> None:
        self._log, self._seen = log, set[Plan]()
        self._sizes = candidates.batch_sizes
        if workers is None or workers.is_here:
            self._runner: _Here | _Elsewhere = _Here(candidates)
        else:
            assert shared is not None, "workers need a folder that they share"
            self._runner = _Elsewhere(candidates, workers, shared)
        self.costs = EvaluationCosts()
        self._complete: dict[float, list[float]] = {}  # mean loss of a plan → its sums

    def __call__(self, plans: Sequence[Plan], limit: float, share: float = 1.0) -> list[float]:
        """Mean loss of every plan over the first ``share`` of the batches, at least one.

        A plan stops at the batch with which its loss must exceed ``limit``, or with which a paired test says that it
        will: where the limit is the loss of a plan, batch by batch against that one's (a race as in Maron & Moore,
        1997, with Student's t). It then gets a bound above the limit, or the next number after it: no more was proven,
        so that a later search with a higher limit asks again. Batches that workers did beyond that decide nothing.
        """
        start = time.perf_counter()
        count = max(1, round(share * len(self._sizes)))
        sums = {plan: list(self._log[_name(plan)]) if _name(plan) in self._log else [] for plan in plans}
        known = {plan: len(parts) for plan, parts in sums.items()}
        self._count([plan for plan in sums if known[plan] < count])
        while hopeful := [p for p, parts in sums.items() if self._judged(parts[:count], limit, count) is None]:
            missing = _next_batches({plan: len(sums[plan]) for plan in hopeful}, count, self._runner.at_once)
            for number, losses in self._runner.run(missing, self.costs).items():
                for plan, loss in zip(missing[number], losses, strict=True):
                    sums[plan].append(loss)
        for plan, parts in sums.items():
            if len(parts) > known[plan]:
                self._log.add(_name(plan), parts)
        self.costs.waited_s += time.perf_counter() - start
        return [self._loss(sums[plan][:count], limit, count) for plan in plans]

    def _loss(self, parts: Sequence[float], limit: float, count: int) -> float:
        loss = self._judged(parts, limit, count)
        assert loss is not None, "every plan has seen all its batches or was given up"
        return loss

    def _judged(self, parts: Sequence[float], limit: float, count: int) -> float | None:
        """A plan's mean loss over ``count`` batches by those that it has seen; None while it must see more."""
        samples, whole = sum(self._sizes[:count]), count == len(self._sizes)
        totals = np.cumsum(parts)
        over = np.flatnonzero(totals > limit * samples)
        worse = self._worse(parts, limit) if whole else None
        if worse is not None and not (len(over) and over[0] <= worse):
            return math.nextafter(limit, math.inf)
        if len(over):
            return float(totals[over[0]]) / samples
        if len(parts) < count:
            return None
        mean = float(totals[-1]) / samples
        if whole and math.isfinite(mean):
            self._complete[mean] = list(parts)
        return mean

    def _worse(self, parts: Sequence[float], limit: float) -> int | None:
        """Number of the first batch with which a plan proves worse than the one whose loss is ``limit``."""
        rival = self._complete.get(limit)
        parts = list(itertools.takewhile(math.isfinite, parts))
        if rival is None or len(parts) < 2:
            return None
        n = np.arange(1, len(parts) + 1)
        difference = (np.array(parts) - rival[: len(parts)]) / self._sizes[: len(parts)]
        mean = np.cumsum(difference) / n
        variance = np.maximum(np.cumsum(difference**2) - n * mean**2, 0)[1:] / (n[1:] - 1)
        proven = np.flatnonzero(mean[1:] > stats.t.ppf(1 - SLIP, n[1:] - 1) * np.sqrt(variance / n[1:]))
        return int(proven[0]) + 1 if len(proven) else None

    def _count(self, plans: Sequence[Plan]) -> None:
        new = set(plans) - self._seen
        self._seen |= new
        self.costs.plans += len(new)
        self.costs.batches_whole += len(new) * len(self._sizes)


def _next_batches(seen: Mapping[Plan, int], count: int, at_once: int) -> dict[int, list[Plan]]:
    """Numbers of batches in ascending order → plans that see them next.

    Plans see them in step, those that lag behind first; a few plans alone see several, so that all workers have one.

    Args:
        seen: plan → batches that it has seen, from the first on.
        count: of batches.
        at_once: batches of plans that can be run at a time.
    """
    first = min(seen.values())
    behind = [plan for plan, number in seen.items() if number == first]
    depth = max(1, at_once // len(behind))
    return dict.fromkeys(range(first, min(first + depth, count)), behind)


Sums = dict[int, list[float]]
"""Number of a batch → sums of its plans' losses, in their order."""


class _Here:
    """Runs batches of plans in this process."""

    at_once = 1

    def __init__(self, candidates: Candidates) -> None:
        self._network = CandidateNetwork(candidates)

    def run(self, missing: Mapping[int, Sequence[Plan]], costs: EvaluationCosts) -> Sums:
        """Sums of the plans' losses over their batches."""
        found: Sums = {}
        for number, plans in missing.items():
            found[number], own = self._network.run(number, plans)
            costs.add(own)
        return found


class _Elsewhere:
    """Has workers run batches of plans; what they need lies in a file that is named by its content."""

    def __init__(self, candidates: Candidates, workers: Workers, shared: Path) -> None:
        content = cloudpickle.dumps(candidates)  # adapters and networks of the user's own may hold local functions
        self._sha256 = hashlib.sha256(content).hexdigest()
        self._path = shared.resolve() / f"candidates-{self._sha256}.pickle"
        write_atomically(self._path, content)
        for earlier in set(self._path.parent.glob("candidates-*.pickle")) - {self._path}:  # of searches that are over
            earlier.unlink(missing_ok=True)
        self._workers = workers

    @property
    def at_once(self) -> int:
        """As many as there are workers."""
        return self._workers.count

    def run(self, missing: Mapping[int, Sequence[Plan]], costs: EvaluationCosts) -> Sums:
        """Sums of the plans' losses over their batches."""
        size = max(1, sum(len(plans) for plans in missing.values()) // self._workers.count)
        parts: dict[str, tuple[int, list[Plan]]] = {}
        for number, plans in missing.items():
            ordered = sorted(plans)  # neighbours share work
            for start in range(0, len(ordered), size):
                parts[f"batch {number}, plans from {start}"] = number, ordered[start : start + size]
        tasks = [(name, (str(self._path), self._sha256, *part)) for name, part in parts.items()]
        found: dict[tuple[int, Plan], float] = {}
        for name, (losses, own) in self._workers.compute(run_batch, tasks):
            costs.add(own)
            number, ordered = parts[name]
            found |= {(number, plan): loss for plan, loss in zip(ordered, losses, strict=True)}
        return {number: [found[number, plan] for plan in plans] for number, plans in missing.items()}


_idle: dict[str, list[CandidateNetwork]] = {}
"""Hash of the last file → the networks that a worker's threads have made of it, those that are not running."""
_idle_lock = threading.Lock()


def run_batch(path: str, sha256: str, number: int, plans: Sequence[Plan]) -> tuple[list[float], EvaluationCosts]:
    """A worker's task: `CandidateNetwork.run` for the candidates in a file of this hash."""
    with _idle_lock:
        if sha256 not in _idle:
            _idle.clear()
        waiting = _idle.setdefault(sha256, [])
        network = waiting.pop() if waiting else None
    network = network or CandidateNetwork(_read_candidates(Path(path), sha256))
    found = network.run(number, plans)
    with _idle_lock:
        waiting.append(network)
    return found


def _read_candidates(path: Path, sha256: str) -> Candidates:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:  # before anything in it runs
        raise ArtifactError(f"{path} was altered. Delete it and search again")
    try:
        candidates: Candidates = pickle.loads(content)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"A worker cannot import {error.name}, which the network comes from: start workers with its folder on "
            "PYTHONPATH."
        ) from error
    return candidates


def _name(plan: Plan) -> str:
    return ",".join(map(str, plan))


def outputs_of(network: nn.Module, inputs: Tensor, batch_size: int = 256) -> Tensor:
    """[n, …] outputs of a network in eval mode."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in torch.split(inputs, batch_size)])
