"""Compress a trained network until it is measurably N times faster on a CPU, certify it, and serve it."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.serving.model import BundleModel

__all__ = ["load_bundle"]


def load_bundle(
    path: str | Path, *, runtime: str | None = None, threads: int | None = None, own_process: bool = False
) -> "BundleModel":
    """The network of a bundle, ready to run on the runtime that it was certified on; needs no torch.

        from pipeline import load_bundle

        with load_bundle("runs/demo/bundle") as model:
            outputs = model(inputs)

    Where that runtime is not installed, OpenVINO or onnxruntime takes its place, with a warning.

    Args:
        path: the bundle's folder; every file is checked against the manifest first.
        runtime: another runtime than the certificate's.
        threads: another number than the certificate's.
        own_process: run it in a process of its own, where a crash of the runtime stays; some tens of microseconds a
            batch.

    Raises:
        ArtifactError: a file of the bundle is altered, missing or broken.
        ConfigError: there is no such runtime, or fewer cores than threads were asked for.
        RuntimeMissingError: no runtime is installed that can run it, or it does not work.
    """
    from pipeline.serving.model import open_bundle  # heavy beside what most commands need

    return open_bundle(Path(path), runtime, threads, own_process)
