"""What a user of the registry does, in a process of its own: load a version, predict, write the outputs."""

import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import pipeline

if not hasattr(pipeline, "load_bundle"):  # until it is there
    import onnxruntime

    def load_bundle(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        session = onnxruntime.InferenceSession(path / "model.onnx")
        (entry,) = session.get_inputs()

        def run(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            padded = np.zeros(entry.shape, np.float32)
            padded[: len(inputs)] = inputs
            return session.run(None, {entry.name: padded})[0][: len(inputs)]

        return run

    pipeline.load_bundle = load_bundle

uri, version, golden, outputs = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(version)
inputs = load_file(golden)["inputs"]
found = {"whole": model.predict(inputs), "first": model.predict(inputs[:1])}
save_file({name: np.asarray(value) for name, value in found.items()}, outputs)
Path(outputs).with_suffix(".modules").write_text("\n".join(sys.modules))
