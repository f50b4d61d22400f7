"""Where a bundle comes from, as hashes: weights, data, configuration and code."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.config import NOT_OF_THE_RESULT, RunConfig
from pipeline.context import Run
from pipeline.run_folder import digest, file_digest

PACKAGES = ("calibration", "pipeline", "profilers", "reports", "targets")


def provenance(run: Run) -> dict[str, Any]:
    """What goes into the manifest. Files are named without their folders, which are nobody else's business."""
    given, train = run.config.weights, run.splits.train
    settings = settings_of(run.config)
    return {
        "model": run.adapter.name,
        "task": run.adapter.task,
        "weights": {
            "given": {"name": given.name, "sha256": weights_digest(given)} if given else None,
            "dense_sha256": run.model_key,
            "compressed_sha256": file_digest(run.folder.file("checkpoint.safetensors")),
        },
        "data": {
            "name": run.splits.name,
            "classes": len(train.classes),
            "train_samples": len(train),
            "test_samples": len(run.splits.test),
            "input_shape": list(train.input_shape),
            "calibration_samples": len(run.calibration.indices),
            "calibration_sha256": run.calibration.sha256,
        },
        "configuration": {"sha256": digest(settings), "settings": settings},
        "code": {"version": metadata.version("spdy-edge"), "sha256": code_digest()},
    }


def weights_digest(weights: Path) -> str | None:
    """SHA-256 of a file, or over the names and hashes of a folder's files; None for a name on a hub."""
    if not weights.exists():
        return None
    if weights.is_file():
        return file_digest(weights)
    files = sorted(path for path in weights.rglob("*") if path.is_file())
    return digest([[path.relative_to(weights).as_posix(), file_digest(path)] for path in files])


def settings_of(config: RunConfig) -> Mapping[str, Any]:
    """Every setting, files by their name alone."""
    settings = config.model_dump(exclude=NOT_OF_THE_RESULT) | {"target": Path(config.target).name}
    return {name: value.name if isinstance(value, Path) else value for name, value in settings.items()}


def code_digest() -> str:
    """SHA-256 over the names and hashes of every source file: the same code has the same one wherever it is."""
    root = Path(__file__).parents[2]
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return digest([[path.relative_to(root).as_posix(), file_digest(path)] for path in files])
