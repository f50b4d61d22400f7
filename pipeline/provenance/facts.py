"""A certificate in a few words: what a registry, a bill of materials or a model card repeats of it."""

from collections.abc import Mapping
from typing import Any


def certificate_facts(certificate: Mapping[str, Any]) -> dict[str, str]:
    """Name → value as text, the same names wherever a bundle is described.

    Raises:
        KeyError: it is no certificate.
    """
    accuracy, target = certificate["accuracy"], certificate["target"]
    return {
        "status": certificate["status"],
        "requested_speedup": f"{certificate['requested_speedup']:g}",
        "measured_speedup": f"{certificate['measured_speedup']:.3f}",
        "speedup_interval": f"{certificate['ci_low']:.3f} to {certificate['ci_high']:.3f}",
        "confidence": f"{certificate['confidence']:g}",
        "speedup_over_best_dense": f"{certificate['speedup_over_best_dense']:.3f}",
        "latency_ms": f"{certificate['compressed']['latency_s'] * 1e3:.3f}",
        "accuracy_metric": accuracy["metric"],
        "accuracy": f"{accuracy['compressed']:.4f}",
        "accuracy_dense": f"{accuracy['dense']:.4f}",
        "accuracy_difference_interval": f"{accuracy['ci_low']:.4f} to {accuracy['ci_high']:.4f}",
        "host": certificate["host"]["model"],
        "runtime": f"{target['runtime']} {certificate['versions'].get(target['runtime'], '')}".strip(),
        "threads": str(target["threads"]),
        "batch_size": str(target["batch_size"]),
        "proxy": str(certificate["proxy"]).lower(),
        "licence_note": certificate["licence_note"],
    }
