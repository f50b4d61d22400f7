"""Certify the exported network, and measure what a uniform plan would have given instead."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.certificate import (
    Certificate,
    Protocol,
    SpeedupEvidence,
    accuracy_record,
    measure_best_dense,
    measure_speedup,
    verdict,
)
from pipeline.context import Run
from pipeline.export import unit_initialisers
from pipeline.measuring import PlanBench
from pipeline.models.base import Predict, Score
from pipeline.plan import load_plan
from profilers.measure import Candidate
from targets.registry import installed_runtimes

SMALL_FRACTION = 0.5
"""A runtime that computes less than this share of the operations itself runs the network in its fallback."""


def certify_network(run: Run) -> Certificate:
    """Time model.onnx against dense.onnx in fresh processes, and score both on the runtime.

    Raises:
        RuntimeMissingError: a network does not run on the runtime.
    """
    protocol = Protocol()
    PlanBench(run)  # tells the bench how near each other the cores can be
    model = run.folder.file("model.onnx")
    with run.reporter.task("certifying", protocol.most_processes) as task:
        evidence = measure_speedup(
            run.bench,
            run.dense_onnx,
            model,
            protocol,
            seed=run.config.seed,
            on_process=lambda done, total: task.update(done, total=total),
        )
    if evidence.supported_fraction is not None and evidence.supported_fraction < SMALL_FRACTION:
        run.reporter.warn(f"{evidence.supported_fraction:.0%} of the operations run on the runtime's own kernels")
    rivals = [info for info in installed_runtimes() if info.name != run.bench.runtime.name] + [run.bench.runtime]
    dense_times = measure_best_dense(run.bench, rivals, run.dense_onnx, seed=run.config.seed)
    scores = [run.adapter.evaluate(_predict(run, path), run.splits) for path in (run.dense_onnx, model)]
    return _certificate(run, evidence, dense_times, scores)


def _predict(run: Run, path: Path) -> Predict:
    return lambda inputs: run.bench.infer(Candidate(path.stem, path), inputs)


def _certificate(run: Run, evidence: SpeedupEvidence, dense_times: Any, scores: list[Score]) -> Certificate:
    config, speedup = run.config, evidence.speedup
    _, plan = load_plan(run.folder.file("plan.json"), run.units)
    best = dense_times[0]
    runtime = run.bench.runtime
    return Certificate(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        status=verdict(config.speedup, speedup, evidence.noise_floor, evidence.is_disturbed),
        requested_speedup=config.speedup,
        predicted_speedup=plan["predicted_speedup"],
        measured_speedup=speedup.value,
        ci_low=speedup.low,
        ci_high=speedup.high,
        confidence=speedup.confidence,
        noise_floor=evidence.noise_floor,
        speedup_all_rounds=asdict(evidence.speedup_all_rounds),
        disturbed_fraction=evidence.disturbed_fraction,
        is_disturbed=evidence.is_disturbed,
        baseline={"runtime": runtime.name, "precision": "fp32", "latency_s": evidence.baseline_s},
        compressed={
            "runtime": runtime.name,
            "precision": "fp32",
            "latency_s": evidence.compressed_s,
            "sparsity": sparsity_of(run),
        },
        best_dense={"runtime": best.runtime, "precision": best.precision, "latency_s": best.latency_s},
        speedup_over_best_dense=best.latency_s / evidence.compressed_s,
        accuracy=accuracy_record(*scores, seed=config.seed),
        host=run.host.to_json(),
        target=run.bench.target.to_json(),
        proxy=run.proxy,
        licence_note=runtime.licence_note,
        versions={**run.host.versions, runtime.name: runtime.version or ""},
        supported_fraction=evidence.supported_fraction,
        dense_times=[{"runtime": t.runtime, "precision": t.precision, "latency_s": t.latency_s} for t in dense_times],
        file_bytes={
            "dense_onnx": run.dense_onnx.stat().st_size,
            "compressed_onnx": run.folder.file("model.onnx").stat().st_size,
            "compressed_sparse": sparse_bytes(run),
        },
        samples={
            "processes": [
                {
                    "baseline_s": p.baseline_s,
                    "compressed_s": p.compressed_s,
                    "distance_s": p.distance_s,
                    "null_s": p.null_s,
                    "null_baseline_s": p.null_baseline_s,
                }
                for p in evidence.processes
            ]
        },
    )


def sparsity_of(run: Run) -> float:
    """Fraction of zeros over the weights of all units, dense ones too, in the exported file."""
    weights = _unit_weights(run)
    return float(sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights))


def sparse_bytes(run: Run) -> int:
    """Bytes of the exported weights as values and a bit mask."""
    return sum(int(np.count_nonzero(w)) * w.itemsize + (w.size + 7) // 8 for w in _unit_weights(run))


def _unit_weights(run: Run) -> list[Any]:
    path = run.folder.file("model.onnx")
    names = set(unit_initialisers(path, run.units).values())
    return [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.name in names]
