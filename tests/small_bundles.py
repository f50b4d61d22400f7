"""Small bundles, made by hand: what a certificate and a plan say, without a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.releases.bundle import write_bundle
from tests import certificates
from tests.certificates import merged

RELEASED: dict[str, Any] = {
    "measured_speedup": 3.02,
    "ci_low": 3.0,
    "ci_high": 3.04,
    "baseline": {"latency_s": 0.00184},
    "compressed": {"latency_s": 0.00061, "sparsity": 0.742},
    "best_dense": {"precision": "bf16", "latency_s": 0.00115},
    "speedup_over_best_dense": 1.886,
    "accuracy": {
        "dense": 0.96,
        "compressed": 0.95,
        "compressed_low": 0.94,
        "compressed_high": 0.9595,
        "difference": -0.01,
        "ci_low": -0.014,
        "ci_high": -0.006,
        "n": 2000,
    },
    "file_bytes": {"dense_onnx": 5, "compressed_onnx": 2_790_000, "compressed_sparse": 789_000},
}
"""Round figures, whose intervals others can be put beside."""


def certificate(**changes: Any) -> dict[str, Any]:
    """A certified 3x; ``changes`` replace fields, mappings are merged."""
    return merged(certificates.certificate(**RELEASED), changes)


def speedup(low: float, value: float, high: float) -> dict[str, float]:
    """Fields of a certificate: a speedup with its interval."""
    return {"ci_low": low, "measured_speedup": value, "ci_high": high}


def lost(low: float, points: float, high: float) -> dict[str, float]:
    """Fields of an accuracy: points lost to compression, at least and at most."""
    return {
        "compressed": 0.96 - points / 100,
        "compressed_low": 0.95 - points / 100,
        "compressed_high": 0.97 - points / 100,
        "difference": -points / 100,
        "ci_low": -high / 100,
        "ci_high": -low / 100,
    }


def small_bundle(
    bundle: Path,
    *,
    amounts: Mapping[str, float] | None = None,
    dense: bytes = b"dense",
    model_bytes: int = 2_790_000,
    **changes: Any,
) -> Path:
    """Write a bundle with a manifest; ``amounts`` unit → sparsity, ``changes`` as of `certificate`."""
    source = bundle.with_name(bundle.name + ".source")
    source.mkdir(parents=True)
    units = [
        {"name": name, "level": {"family": "unstructured" if amount else "dense", "amount": amount}}
        for name, amount in (amounts or {"conv1": 0.0, "layer1.conv1": 0.6, "layer1.conv2": 0.7}).items()
    ]
    contents = {
        "certificate.json": json.dumps(certificate(**changes)).encode(),
        "plan.json": json.dumps({"schema": 1, "units": units}).encode(),
        "model.onnx": bytes(model_bytes),
        "dense.onnx": dense,
    }
    for name, content in contents.items():
        (source / name).write_bytes(content)
    write_bundle(bundle, {name: source / name for name in contents}, {"status": "certified"})
    return bundle
