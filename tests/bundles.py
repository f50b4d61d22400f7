"""A small bundle made by hand: what is in its files matters to nobody, that they are listed does."""

import json
from pathlib import Path
from typing import Any

from pipeline.releases.bundle import write_bundle
from tests.certificates import certificate

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


def make_bundle(folder: Path, status: str = "certified", **changes: Any) -> Path:
    """Write a bundle below ``folder``; ``changes`` are of the certificate."""
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "model.onnx").write_bytes(bytes(range(256)) * 5000)  # more than one piece of an upload
    (source / "model.xml").write_text("<net/>")
    (source / "certificate.json").write_text(json.dumps(certificate(status=status, **changes)))
    names = {"model.onnx": "model.onnx", "openvino/model.xml": "model.xml", "certificate.json": "certificate.json"}
    bundle = folder / "bundle"
    write_bundle(
        bundle, {name: source / there for name, there in names.items()}, {"status": status, "provenance": ORIGIN}
    )
    return bundle


def contents(bundle: Path) -> dict[str, bytes]:
    """Name → bytes of every file."""
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
