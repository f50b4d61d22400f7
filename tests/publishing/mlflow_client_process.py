"""What a user of the registry does, in a process of its own: load a version, predict, write the outputs."""

import sys
from pathlib import Path

import mlflow
import numpy as np
from safetensors.numpy import load_file, save_file

uri, version, golden, outputs = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(version)
inputs = load_file(golden)["x"]
found = {"whole": model.predict(inputs), "first": model.predict(inputs[:1])}
save_file({name: np.asarray(value) for name, value in found.items()}, outputs)
Path(outputs).with_suffix(".modules").write_text("\n".join(sys.modules))
