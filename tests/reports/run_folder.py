"""A realistic run folder: ResNet-20 on DeepSparse, three times faster."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.certificates import certificate

Files = dict[str, dict[str, Any]]

STAGES = {16: 1.25, 32: 0.85, 64: 0.5}


def _units() -> list[dict[str, Any]]:
    units = [_unit("conv1", (16, 3, 3, 3), 0.0, prunable=False)]
    amounts = iter(np.linspace(0.93, 0.71, 18).round(4).tolist())
    previous = 16
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(3):
            for conv in (1, 2):
                units.append(_unit(f"layer{stage}.{block}.conv{conv}", (width, previous, 3, 3), next(amounts)))
                previous = width
    return [*units, _unit("linear", (10, 64), 0.0, prunable=False)]


def _unit(name: str, shape: tuple[int, ...], amount: float, prunable: bool = True) -> Any:
    return {
        "name": name,
        "kind": "linear" if len(shape) == 2 else "conv",
        "shape": list(shape),
        "parameters": int(np.prod(shape)),
        "level": {"family": "unstructured" if prunable else "dense", "amount": amount, "precision": "fp32"},
        "prunable": prunable,
        "dense_s": STAGES[shape[0]] / 1000 if prunable else None,
        "seconds": (0.44 * (1 - amount) + 0.02) / 1000 if prunable else None,
        "error": 0.2 * amount**4,
    }


def _trace(rng: np.random.Generator) -> list[list[Any]]:
    losses = np.concatenate([0.9 + rng.exponential(0.5, 100), 0.46 + rng.exponential(0.2, 220)])
    best = np.minimum.accumulate(losses)
    phases = ["random"] * 100 + ["neighbourhood"] * 220
    return [
        [i + 1, float(a), float(b), phase, 2] for i, (a, b, phase) in enumerate(zip(losses, best, phases, strict=True))
    ]


def _effort() -> dict[str, float]:
    return {
        "plans": 300,
        "plans_a_second": 7.5,
        "batches_run": 600,
        "batches_whole": 1200,
        "blocks_run": 4000,
        "blocks_reused": 1000,
        "seconds": 50.0,
        "network_s": 38.0,
        "stitching_s": 1.0,
        "loss_s": 1.0,
        "solving_s": 10.0,
    }


def _samples(rng: np.random.Generator) -> dict[str, Any]:
    def times(median_ms: float, drift: float) -> list[float]:
        return (median_ms * (1 + drift) * (1 + rng.gamma(2.0, 0.006, 80)) / 1000).tolist()

    drifts = rng.normal(0, 0.006, 6).tolist()
    return {
        "processes": [
            {"baseline_s": times(20.3, d), "compressed_s": times(6.72, d), "null_s": times(20.31, d)} for d in drifts
        ]
    }


def _latency_table(units: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    predicted = rng.uniform(0.006, 0.009, 60)
    measured = predicted * (1 + rng.normal(0, 0.016, 60))
    labels = ["anchor"] * 6 + ["random"] * 22 + ["proposed"] * 24 + ["solved"] * 2 + ["neighbour"] * 6
    return {
        "schema": 1,
        "fixed_s": 0.00504,
        "dense_s": 0.02055,
        "units": [unit["name"] for unit in units],
        "levels": ["dense", "unstructured-0.9900"],
        "seconds": [[unit["dense_s"], 0.00003] if unit["prunable"] else [0.0, 0.0] for unit in units],
        "fit_error": {"median": 0.0142, "mean": 0.0197, "worst": 0.061, "n": 52},
        "measurements": [
            {"label": label, "predicted_s": p, "measured_s": m, "ratio": 0.0206 / m}
            for label, p, m in zip(labels, predicted.tolist(), measured.tolist(), strict=True)
        ],
    }


def _comparison() -> dict[str, Any]:
    def row(allocator: str, speedup: float, accuracy: float, ours: bool) -> dict[str, Any]:
        return {
            "allocator": allocator,
            "measured_speedup": speedup,
            "accuracy": accuracy,
            "correction": "global output matching",
            "sparsity": 0.759 if ours else 0.866,
            "is_ours": ours,
        }

    return {
        "schema": 1,
        "rows": [
            row("spdy", 3.024, 0.8612, ours=True),
            row("uniform", 3.03, 0.8421, ours=False),
            row("global-magnitude", 2.99, 0.8368, ours=False),
        ],
    }


def _capability() -> dict[str, Any]:
    gains = {"convolution 3x3, 64": (0.9, 1.8, 3.4, 5.2), "matrix product 768": (1.0, 2.1, 3.9, 6.6)}
    rows = [
        {"operation": operation, "sparsity": sparsity, "speedup": gain}
        for operation, speedups in gains.items()
        for sparsity, gain in zip((0.5, 0.8, 0.9, 0.95), speedups, strict=True)
    ]
    dense = [{**row, "speedup": 1.0} for row in rows]
    return {
        "schema": 1,
        "runtimes": [
            {
                "name": "deepsparse",
                "version": "1.8.0",
                "rows": rows,
                "best_speedup": 6.6,
                "promise": 3.64,
                "gains": True,
            },
            {
                "name": "openvino",
                "version": "2026.4.0",
                "rows": dense,
                "best_speedup": 1.0,
                "promise": 1.0,
                "gains": False,
            },
        ],
    }


def realistic_files() -> Files:
    """Every file of a run, by name without suffix."""
    rng = np.random.default_rng(0)
    units = _units()
    return {
        "certificate": certificate(created=None, samples=_samples(rng)),
        "plan": {
            "schema": 1,
            "allocator": "spdy",
            "requested_speedup": 3.0,
            "predicted_speedup": 3.06,
            "units": units,
            "rounds": [
                {"round": 1, "predicted_speedup": 3.0, "measured_speedup": 2.87, "loss": 0.44},
                {"round": 2, "predicted_speedup": 3.06, "measured_speedup": 3.02, "loss": 0.46},
            ],
            "search": {"evaluations": 320, "seconds": 96.4, "effort": _effort(), "trace": _trace(rng)},
        },
        "latency_table": _latency_table(units, rng),
        "comparison": _comparison(),
        "correction": {
            "schema": 1,
            "accuracy": 0.8612,
            "history": [
                {"step": 8 * i, "loss": 0.9 * 0.93**i + 0.1, "accuracy": 0.86 - 0.04 * 0.9**i} for i in range(30)
            ],
        },
        "training": {"schema": 1, "history": [{"epoch": i, "loss": 0.5 / (i + 1)} for i in range(6)]},
        "capability": _capability(),
        "bundle.envelope": {
            "schema": 1,
            "places": [
                _place(2, 16, "certified", {"value": 3.1, "low": 3.0, "high": 3.2, "confidence": 0.95}),
                _place(1, 1, "not possible", None),
            ],
        },
        "run": {
            "schema": 1,
            "config": {
                "model": "resnet:20",
                "target": "intel",
                "speedup": 3.0,
                "epochs": 0,
                "seed": 0,
                "out": "runs/a",
            },
            "stage_seconds": {"probe": 21.0, "profile": 171.4, "database": 44.1, "search": 96.4, "certify": 130.2},
            "stage_peak_bytes": {"database": 3_100_000_000, "search": 3_400_000_000},
            "versions": {"spdy-edge": "0.1.0"},
            "command": ["/opt/env/bin/pipeline", "run", "--target", "intel", "--speedup", "3", "--out", "runs/a"],
        },
    }


def _place(threads: int, batch_size: int, status: str, speedup: dict[str, float] | None) -> dict[str, Any]:
    return {"threads": threads, "batch_size": batch_size, "neighbour": False, "status": status, "speedup": speedup}


def write_run_folder(folder: Path, files: Files) -> Path:
    """Write ``files`` as a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
