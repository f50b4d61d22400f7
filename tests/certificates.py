"""The certificate that tests start from: ResNet-20 on DeepSparse, three times faster, as the pipeline writes it."""

import copy
from collections.abc import Mapping
from typing import Any

NETWORK = {"runtime": "deepsparse", "precision": "fp32"}
BEST_DENSE = {"runtime": "openvino", "precision": "int8", "latency_s": 0.0073}


def _deployment(p50_s: float, peak_rss_bytes: float) -> dict[str, Any]:
    percentiles = {"p50_s": p50_s, "p90_s": 1.04 * p50_s, "p99_s": 1.2 * p50_s}
    started = {"first_inference_s": 1.9 * p50_s, "compile_s": 0.412}
    return {**percentiles, **started, "peak_rss_bytes": peak_rss_bytes, "samples": 431}


CERTIFICATE: dict[str, Any] = {
    "schema": 1,
    "created": "2026-03-01T12:00:00+00:00",
    "status": "certified",
    "requested_speedup": 3.0,
    "predicted_speedup": 3.06,
    "measured_speedup": 3.024,
    "ci_low": 3.003,
    "ci_high": 3.049,
    "confidence": 0.95,
    "noise_floor": 0.004,
    "is_disturbed": False,
    "baseline": NETWORK | {"latency_s": 0.02055},
    "compressed": NETWORK | {"latency_s": 0.006796, "sparsity": 0.759},
    "best_dense": BEST_DENSE,
    "dense_times": [
        BEST_DENSE,
        {"runtime": "openvino", "precision": "fp32", "latency_s": 0.0111},
        NETWORK | {"latency_s": 0.0206},
    ],
    "speedup_over_best_dense": 1.074,
    "accuracy": {
        "metric": "top-1 accuracy",
        "dense": 0.8796,
        "compressed": 0.8612,
        "compressed_low": 0.8516,
        "compressed_high": 0.8706,
        "difference": -0.0184,
        "ci_low": -0.0241,
        "ci_high": -0.0127,
        "confidence": 0.95,
        "n": 5000,
    },
    "host": {
        "id": "7146aeeb8f2bfb30",
        "vendor": "intel",
        "model": "Intel Xeon Platinum 8488C",
        "uarch": "sapphirerapids",
        "isa": ["avx2", "avx512f", "avx512_vnni"],
        "usable_cores": 2,
        "caches": {"L1d": 49152, "L2": 2097152, "L3": 110100480},
        "memory_bytes": 16_000_000_000,
        "os": "Linux",
        "governor": None,
        "versions": {"torch": "2.13.0"},
    },
    "target": {"name": "intel", "vendor": "intel", "runtime": "deepsparse", "threads": 2, "batch_size": 64},
    "proxy": False,
    "licence_note": "DeepSparse Community: evaluation in development and test, not production.",
    "versions": {"deepsparse": "1.8.0", "python": "3.11.7"},
    "supported_fraction": 0.964,
    "disturbed_fraction": 0.031,
    "deployment": {"dense": _deployment(0.0207, 151e6), "compressed": _deployment(0.0069, 118e6)},
    "disturbances": [],
    "hidden_costs": {"reorders": "layouts and types are converted for 4.1% of the time: Reorder 4.1%"},
    "file_bytes": {"dense_onnx": 1_092_000, "compressed_onnx": 1_092_000, "compressed_sparse": 268_000},
}


def certificate(**changes: Any) -> dict[str, Any]:
    """That certificate with some fields replaced; mappings are merged. It holds no raw samples."""
    return merged(CERTIFICATE, changes)


def merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` with ``changes``, of mappings only the keys that are named."""
    old = copy.deepcopy(dict(fields))  # tests change what they get
    return old | {
        name: {**old.get(name, {}), **value} if isinstance(value, Mapping) else value for name, value in changes.items()
    }
