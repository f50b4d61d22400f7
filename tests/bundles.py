"""A small bundle made by hand: what is in its files matters to nobody, that they are listed does."""

import json
from pathlib import Path
from typing import Any

from pipeline.bundle import write_bundle

ORIGIN: dict[str, Any] = {
    "model": "resnet:20",
    "task": "image-classification",
    "weights": {
        "given": {"name": "resnet20.safetensors", "sha256": "1" * 64},
        "dense_sha256": "2" * 64,
        "compressed_sha256": "3" * 64,
    },
    "data": {
        "name": "cars",
        "classes": 10,
        "train_samples": 5000,
        "test_samples": 1000,
        "input_shape": [3, 32, 32],
        "calibration_samples": 1024,
        "calibration_sha256": "4" * 64,
    },
    "configuration": {"sha256": "5" * 64, "settings": {"speedup": 3.0}},
    "code": {"version": "0.1.0", "sha256": "6" * 64},
}


def make_certificate(status: str = "certified", **changes: Any) -> dict[str, Any]:
    """A certificate as the pipeline writes it, without raw samples."""
    deepsparse = {"runtime": "deepsparse", "precision": "fp32"}
    return {
        "schema": 1,
        "status": status,
        "requested_speedup": 3.0,
        "predicted_speedup": 3.06,
        "measured_speedup": 3.024,
        "ci_low": 3.003,
        "ci_high": 3.049,
        "confidence": 0.95,
        "noise_floor": 0.004,
        "baseline": {**deepsparse, "latency_s": 0.02055},
        "compressed": {**deepsparse, "latency_s": 0.006796, "sparsity": 0.759},
        "best_dense": {"runtime": "openvino", "precision": "bf16", "latency_s": 0.0073},
        "speedup_over_best_dense": 1.074,
        "accuracy": {
            "metric": "top-1 accuracy",
            "dense": 0.8796,
            "compressed": 0.8612,
            "difference": -0.0184,
            "ci_low": -0.0241,
            "ci_high": -0.0127,
            "confidence": 0.95,
            "n": 1000,
        },
        "host": {"vendor": "intel", "model": "Intel Xeon 8488C", "usable_cores": 2, "os": "Linux"},
        "target": {"vendor": "intel", "runtime": "deepsparse", "threads": 2, "batch_size": 64},
        "proxy": False,
        "licence_note": "evaluation only",
        "versions": {"python": "3.11.7", "deepsparse": "1.8.0"},
        **changes,
    }


def make_bundle(folder: Path, status: str = "certified", **changes: Any) -> Path:
    """Write a bundle below ``folder``; ``changes`` are of the certificate."""
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "model.onnx").write_bytes(bytes(range(256)) * 5000)  # more than one piece of an upload
    (source / "model.xml").write_text("<net/>")
    (source / "certificate.json").write_text(json.dumps(make_certificate(status, **changes)))
    names = {"model.onnx": "model.onnx", "openvino/model.xml": "model.xml", "certificate.json": "certificate.json"}
    bundle = folder / "bundle"
    write_bundle(
        bundle, {name: source / there for name, there in names.items()}, {"status": status, "provenance": ORIGIN}
    )
    return bundle


def contents(bundle: Path) -> dict[str, bytes]:
    """Name → bytes of every file."""
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
