"""Certify the exported network, and measure what a uniform plan would have given instead."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pipeline.certification.accuracy import Score, accuracy_record
from pipeline.certification.baseline import time_dense_everywhere
from pipeline.certification.certificate import Certificate, verdict
from pipeline.certification.evidence import ProcessSamples, Protocol, SpeedupEvidence, disturbances_of, measure_speedup
from pipeline.certification.hidden_costs import hidden_costs
from pipeline.certification.process_log import CERTIFYING, ProcessLog
from pipeline.context import Run
from pipeline.exporting.graph import ExportedGraph
from pipeline.models.base import Predict
from pipeline.planning.measuring import recall_distances
from pipeline.planning.plan import load_plan
from profilers.deployment import DeploymentFacts, measure_deployment
from profilers.latency_table import LatencyTable
from profilers.measure import Candidate
from profilers.statistics import Interval


def certify_network(run: Run, key: str) -> Certificate:
    """Time model.onnx against dense.onnx in fresh processes, and score both on the runtime.

    Processes of the last hour are taken over from a certificate that was interrupted.

    Args:
        key: of the networks and of how they are measured.

    Raises:
        RuntimeMissingError: a network does not run on the runtime.
    """
    protocol = Protocol(budget_s=run.config.certify_budget, spread_s=run.config.certify_spread)
    recall_distances(run)
    model = run.folder.file("model.onnx")
    log = ProcessLog(run.folder.file(CERTIFYING), key, protocol.spread_s)
    if log.processes:
        run.reporter.say(f"{len(log.processes)} processes of the certificate that was interrupted are taken over")
    with run.reporter.task("certifying", protocol.most_processes) as task:
        evidence = measure_speedup(
            run.bench,
            run.dense_onnx,
            model,
            protocol,
            seed=run.config.seed,
            on_process=lambda done, total: task.update(done, total=total),
            earlier=log.processes,
            earlier_s=log.elapsed_s,
            keep=log.add,
        )
    dense_times = time_dense_everywhere(run)
    candidates = [Candidate("dense", run.dense_onnx), Candidate("compressed", model)]
    deployment = measure_deployment(run.bench, candidates)
    costs = hidden_costs(run.bench, candidates[1], evidence.supported_fraction)
    for name, text in costs.items():
        run.reporter.warn(f"hidden cost, {name}: {text}")
    scores = [run.adapter.evaluate(_predict(run, path), run.splits) for path in (run.dense_onnx, model)]
    certificate = _certificate(run, evidence, dense_times, deployment, costs, scores)
    log.forget()
    return certificate


def _predict(run: Run, path: Path) -> Predict:
    return lambda inputs: run.bench.infer(Candidate(path.stem, path), run.adapter.feeds(inputs))


def _certificate(
    run: Run,
    evidence: SpeedupEvidence,
    dense_times: Any,
    deployment: Mapping[str, DeploymentFacts],
    costs: Mapping[str, str],
    scores: list[Score],
) -> Certificate:
    config, speedup = run.config, evidence.speedup
    _, plan = load_plan(run.folder.file("plan.json"), run.units)
    best = dense_times[0]
    runtime = run.bench.runtime
    return Certificate(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        status=verdict(run.goal, speedup, evidence.noise_floor, evidence.is_disturbed),
        requested_speedup=run.goal,
        predicted_speedup=plan["predicted_speedup"],
        measured_speedup=speedup.value,
        ci_low=speedup.low,
        ci_high=speedup.high,
        confidence=speedup.confidence,
        noise_floor=evidence.noise_floor,
        speedup_all_rounds=asdict(evidence.speedup_all_rounds),
        disturbed_fraction=evidence.disturbed_fraction,
        is_disturbed=evidence.is_disturbed,
        baseline={"runtime": runtime.name, "precision": "fp32"} | _latency(evidence.baseline),
        compressed={
            "runtime": runtime.name,
            "precision": " and ".join(sorted({unit["level"]["precision"] for unit in plan["units"]})),
            "sparsity": exported_sparsity(run),
        }
        | _latency(evidence.compressed),
        best_dense=asdict(best),
        speedup_over_best_dense=best.latency_s / evidence.compressed.value,
        accuracy=accuracy_record(*scores, seed=config.seed) | {"others": _further_metrics(*scores)},
        host=run.host.to_json(),
        target=run.bench.target.to_json(),
        proxy=run.proxy,
        table_host_id=LatencyTable.load(run.folder.file("latency_table.json")).host_id,
        licence_note=runtime.licence_note,
        versions={**run.host.versions, runtime.name: runtime.version or ""},
        supported_fraction=evidence.supported_fraction,
        dense_times=[asdict(time) for time in dense_times],
        span_s=evidence.span_s,
        file_bytes=_file_bytes(run),
        deployment={label: facts.to_json() for label, facts in deployment.items()},
        disturbances=disturbances_of(evidence, run.bench),
        ran_ahead=evidence.is_ahead,
        hidden_costs=costs,
        samples={"processes": [_samples(process) for process in evidence.processes]},
    )


def _file_bytes(run: Run) -> dict[str, int]:
    return {
        "dense_onnx": run.dense_onnx.stat().st_size,
        "compressed_onnx": run.folder.file("model.onnx").stat().st_size,
        "compressed_sparse": sparse_bytes(run),
    }


def _latency(median: Interval) -> dict[str, float]:
    return {"latency_s": median.value, "latency_low_s": median.low, "latency_high_s": median.high}


def _samples(process: ProcessSamples) -> dict[str, Any]:
    """Every sample of one process, with what disturbed it."""
    compressed, null = process.compressed, process.null
    return {
        "baseline_s": compressed.reference_s,
        "compressed_s": compressed.samples_s,
        "compilation": compressed.compilation,
        "distance_s": compressed.distance_s,
        "waited_share": compressed.waited_share,
        "null_s": null.samples_s if null else (),
        "null_baseline_s": null.reference_s if null else (),
    }


def exported_sparsity(run: Run) -> float:
    """Share of all units' dense weights, dense units' too, that is zero or gone in the exported file."""
    left = sum(int(np.count_nonzero(w)) for w in _unit_weights(run))
    return 1.0 - left / sum(unit.parameters for unit in run.units)


def sparse_bytes(run: Run) -> int:
    """Bytes of the exported weights as values and a bit mask."""
    return sum(int(np.count_nonzero(w)) * w.itemsize + (w.size + 7) // 8 for w in _unit_weights(run))


def _unit_weights(run: Run) -> list[Any]:
    graph = ExportedGraph(onnx.load(run.folder.file("model.onnx")))
    return [graph.weight(layer.name) for unit in run.units for layer in unit.layers]


def _further_metrics(dense: Score, compressed: Score) -> dict[str, dict[str, float]]:
    """Metrics beside the one that decides, by name, of both networks."""
    return {name: {"dense": value, "compressed": compressed.others[name]} for name, value in dense.others.items()}
